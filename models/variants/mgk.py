"""MGK: every key is a mixture of two Gaussians, so one token can be read from two places."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..initial_value import Generators
from ..site import Site
from ..variant import Variant

COMPONENTS = 2
NARROW = {"equal": (0.5, 0.5), "unequal": (0.5, 1.5)}
"""Factor of each component on |q - k|^2 / sqrt(d)."""


class Shifts(nn.Module):
    """One vector for each component and head that is taken from the keys; the first starts at 0."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(COMPONENTS, heads, 1, head_dim))

    def draw(self, generators: Generators) -> None:
        """Draw normal values of standard deviation 0.5 for all but the first component."""
        drawn = torch.randn(self.weight[1:].shape, generator=generators("weight"))
        self.weight[1:].copy_(0.5 * drawn)

    def forward(self, k: Tensor) -> Tensor:
        """Return the keys of the components, `[component, batch, head, token, head_dim]`."""
        return k - self.weight[:, None].to(k.dtype)


class MgkAttention(nn.Module):
    """A_ij = sum_r pi_r exp(-c_r |q_i - k_jr|^2 / sqrt(d)) over its row's sum, times v, arXiv:2110.08678; r = 1, 2.

    `keys="shifted"`: k_jr = k_j - mu_r with learned mu_r for each head (sMGK). `keys="separate"`: the second key has a
    projection of its own. `widths="equal"`: c = (1/2, 1/2), the paper's sigma^2 = sqrt(d) and the released code for the
    Long Range Arena. `widths="unequal"`: c = (1/2, 3/2), the released language model, in both kinds of keys; like that
    code it leaves out the Gaussians' normalisers, a constant that the priors absorb.

    The priors pi_r belong to a head and sum to 1, as the sigmoid of a learned number that starts at 1/2 each. The
    released code learns pi_r in one pair a layer (Long Range Arena) or for each head and key position (language model,
    which also adds 1e-6 to the row sum) and clamps them to [0, 1]; normalising a row keeps their ratio only. Priors by
    position tie the network to one length and one order of tokens and act as a learned position bias, so they are not
    offered; neither is the hard mode, which takes the nearer component, nor the soft one, whose priors are set by
    batch statistics while training.

    One fused call over 2N keys. Less c_1 |q|^2, which a row has in common, a logit is the dot product of
    [q, 1, |q|^2] and [2 c_r k, sqrt(d) log pi_r - c_r |k|^2, c_1 - c_r]; equal widths need no last coordinate. Under
    a causal mask each token's keys stand side by side and queries stand twice, the second one being read: it sees
    exactly the keys of its own token and those before, with the kernel's own mask.
    """

    def __init__(
        self,
        site: Site,
        keys: Literal["shifted", "separate"] = "shifted",
        widths: Literal["equal", "unequal"] = "equal",
    ) -> None:
        super().__init__()
        self.site = site
        self.narrow = NARROW[widths]
        self.log_odds = nn.Parameter(torch.zeros(site.heads))
        self.shifts = Shifts(site.heads, site.head_dim) if keys == "shifted" else None
        self.second = nn.Linear(site.dim, site.heads * site.head_dim) if keys == "separate" else None

    def _keys(self, k: Tensor, ctx: Context) -> Tensor:
        if self.shifts is not None:
            keys: Tensor = self.shifts(k)
            return keys
        assert self.second is not None
        second = self.second(ctx.x).view(*ctx.x.shape[:2], *k.shape[1::2]).transpose(1, 2)
        return torch.stack((k, second.to(k.dtype)))

    def _factors(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Queries `[batch, head, token, width]`, and keys `[batch, head, token x component, width]`, tokens first."""
        keys = self._keys(k, ctx)
        priors = F.logsigmoid(torch.stack((self.log_odds, -self.log_odds))).to(k.dtype) / self.site.scale
        c = keys.new_tensor(self.narrow).view(-1, 1, 1, 1, 1)
        offset = priors[:, None, :, None, None] - c * keys.square().sum(-1, keepdim=True)
        queries, coordinates = [q, torch.ones_like(q[..., :1])], [2 * c * keys, offset]
        if self.narrow[0] != self.narrow[1]:
            queries.append(q.square().sum(-1, keepdim=True))
            coordinates.append((self.narrow[0] - c).expand_as(offset))
        return torch.cat(queries, -1), torch.cat(coordinates, -1).movedim(0, -2).flatten(-3, -2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q, keys = self._factors(q, k, ctx)
        v = v.repeat_interleave(COMPONENTS, -2)
        mask = None if ctx.mask is None else ctx.mask.repeat_interleave(COMPONENTS, -1)
        causal = self.site.causal
        q = q.repeat_interleave(COMPONENTS, -2) if causal else q
        y = softmax_attention(q, keys, v, scale=self.site.scale, causal=causal, mask=mask)
        return y[..., COMPONENTS - 1 :: COMPONENTS, :] if causal else y

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return log sum_r pi_r exp(-c_r |q - k_r|^2 / sqrt(d))."""
        common = self.narrow[0] * self.site.scale * q.square().sum(-1, keepdim=True)
        q, keys = self._factors(q, k, ctx)
        pairs = self.site.scale * q @ keys.transpose(-2, -1)
        return pairs.view(*pairs.shape[:-1], -1, COMPONENTS).logsumexp(-1) - common


MGK = Variant(
    name="mgk",
    core=MgkAttention,
    source="Nguyen et al. 2022, arXiv:2110.08678; github.com/minhtannguyen/transformer-mgk",
    version=1,
    summary="Reads every token through two keys of its own, by distance, with learned priors between them.",
    formula="A v, A_ij = sum_r pi_r exp(-c_r |q_i - k_jr|^2 / sqrt(d)) / its sum over j, r = 1, 2",
    family="mgk",
    attention_map="row_stochastic",
    settings={"keys": "shifted", "widths": "equal"},
    choices={"keys": ("shifted", "separate"), "widths": ("equal", "unequal")},
    logits=True,
    cost="fused",
    caveats=(
        "It is a distance kernel, so l2 is the right comparison for what the second key adds.",
        "Under a causal mask half of the queries are computed for nothing.",
    ),
    extra_parameters="1 log odds a head, and 2 head_dim shifts a head (shifted) or one more projection (separate)",
    pretrained="lossy",
)
