"""Performer: softmax attention estimated from positive random features, in time linear in the tokens."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..initial_value import Generators
from ..linear_attention import linear_attention
from ..noise import Noise
from ..site import Site
from ..variant import Variant


class PerformerAttention(nn.Module):
    """phi(q) sum_j phi(k_j)' v_j / phi(q) sum_j phi(k_j)', phi(x) = exp(w x' - |x|^2 / 2), FAVOR+ of arXiv:2009.14794.

    Queries and keys are divided by d^(1/4) first, so the weights estimate exp(q k' / sqrt(d)) without bias. The rows
    w are orthogonal in blocks of d, each as long as a normal vector; one set serves all heads of a layer. `features` is
    their number m, 0 for the whole part of d log d, as in github.com/lucidrains/performer-pytorch; the authors' code
    (github.com/google-research/google-research, performer/fast_attention/jax) has 256.

    `fixed` draws the rows once from the training seed; `resampled` takes fresh ones for each sample and pass, also at
    inference, which makes the network stochastic. The authors' code draws them at every pass from a seed that it makes
    of the sum of all queries, so that a sample's rows depend on its batch; the other one redraws every 1000 passes in
    training and keeps the last rows. Neither has a setting here. Both leave the signs of the orthogonal blocks as the
    QR routine gives them, which LAPACK does not choose at random: the rows then lean to one side and the estimate is
    biased. Here the signs make the blocks uniform, as in the paper.

    With `eps` 0, the paper's form, both sums are exact: everything that is subtracted in the exponents cancels. A
    positive `eps` (1e-6 in the authors' code, 1e-4 in the other) is added to each feature after w x' is reduced by its
    largest value, over the features for a query and over features and tokens of a sample and head for the keys; weights
    of long queries and keys then fade to the same constant. Gradient flows through these largest values, as in the
    authors' code; the other one stops it there. As the keys' one looks at later tokens, which both codes let it do
    under a causal mask too, a positive eps has no causal form here. Under a causal mask sums are taken in float64.
    """

    projection: Tensor
    """The fixed rows w, `[feature, head_dim]`; zero until drawn."""

    def __init__(
        self, site: Site, features: int = 0, draw: Literal["fixed", "resampled"] = "fixed", eps: float = 0.0
    ) -> None:
        super().__init__()
        if features < 0 or eps < 0:
            raise ValueError(
                f"performer with {features} features and eps {eps}: allowed are 0 and above for both; set them so"
            )
        if site.causal and eps > 0:
            raise ValueError(
                f"performer with eps {eps} under a causal mask: its scale would look at later keys; set eps to 0"
            )
        self.site = site
        self.eps = eps
        self.features = features or max(int(site.head_dim * math.log(site.head_dim)), 1)
        blocks = -(-self.features // site.head_dim)
        self.normal_shape = (2, blocks * site.head_dim, site.head_dim)
        self.noise: tuple[Noise, ...] = ()
        if draw == "fixed":
            self.register_buffer("projection", torch.zeros(self.features, site.head_dim))
        else:
            self.noise = (Noise("features", self.normal_shape, "normal", "always"),)

    def draw(self, generators: Generators) -> None:
        """Draw the fixed rows from the training seed."""
        if "projection" in self._buffers:
            normal = torch.randn(self.normal_shape, generator=generators("projection"))
            self.projection.copy_(orthogonal_rows(normal[None], self.features)[0])

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        wide = torch.promote_types(v.dtype, torch.float64 if self.site.causal else torch.float32)
        with torch.autocast(q.device.type, enabled=False):
            q, k = (x.to(wide) * self.site.head_dim**-0.25 for x in (q, k))
            if self.noise:
                rows = orthogonal_rows(ctx.noise["features"].to(wide), self.features)
            else:
                rows = self.projection.to(wide)[None]
            along_q, along_k = (x @ rows[:, None].transpose(-2, -1) for x in (q, k))
            size_q, size_k = (x.square().sum(-1, keepdim=True) / 2 for x in (q, k))
            if self.eps > 0:
                return self._shifted(along_q, along_k, size_q, size_k, v, ctx)
            if self.site.causal:
                return self._causal(along_q, along_k - size_k, rows, v, ctx)
            return _exact(along_q, along_k - size_k, v, ctx)

    def _shifted(
        self, along_q: Tensor, along_k: Tensor, size_q: Tensor, size_k: Tensor, v: Tensor, ctx: Context
    ) -> Tensor:
        """Features as the released codes have them, each at least eps."""
        shown = along_k
        if ctx.mask is not None:
            shown = along_k.masked_fill(~ctx.mask[:, None, :, None], torch.finfo(along_k.dtype).min)
        q = (along_q - size_q - along_q.amax(-1, keepdim=True)).exp() + self.eps
        k = (shown - size_k - shown.amax((-2, -1), keepdim=True)).exp() + self.eps
        return linear_attention(q, k, v, causal=False, mask=ctx.mask)

    def _causal(self, along_q: Tensor, log_k: Tensor, rows: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Keys' features never exceed exp(|w|^2 / 2), a bound that knows no token, so it can be moved to the query."""
        bound = rows.square().sum(-1)[:, None, None, :] / 2
        log_q = along_q + bound
        q = (log_q - log_q.amax(-1, keepdim=True)).exp()
        return linear_attention(q, (log_k - bound).exp(), v, causal=True, mask=ctx.mask)


def _exact(log_q: Tensor, log_k: Tensor, v: Tensor, ctx: Context) -> Tensor:
    """Sums over all tokens without overflow or underflow: a feature's mean of the values, weighed by its total."""
    if ctx.mask is not None:
        log_k = log_k.masked_fill(~ctx.mask[:, None, :, None], torch.finfo(log_k.dtype).min)
    means = log_k.softmax(-2).transpose(-2, -1) @ v.to(log_k.dtype)
    weights = (log_q + log_k.logsumexp(-2, keepdim=True)).softmax(-1)
    return (weights @ means).to(v.dtype)


def orthogonal_rows(normal: Tensor, features: int) -> Tensor:
    """Return `[batch, feature, dim]` from normal numbers `[batch, 2, row, dim]`, the rows a multiple of dim.

    The first half gives directions, uniform and orthogonal within blocks of dim rows, and the second half lengths.
    """
    batch, _, rows, dim = normal.shape
    wide = normal.to(torch.promote_types(normal.dtype, torch.float32))
    q, r = torch.linalg.qr(wide[:, 0].reshape(batch, rows // dim, dim, dim))
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1, 1)
    directions = (q * signs[..., None, :]).transpose(-2, -1).reshape(batch, rows, dim)
    rows_of_length: Tensor = directions * torch.linalg.vector_norm(wide[:, 1], dim=-1, keepdim=True)
    return rows_of_length[:, :features].to(normal.dtype)


PERFORMER = Variant(
    name="performer",
    core=PerformerAttention,
    source="Choromanski et al. 2021, arXiv:2009.14794, section 2; github.com/google-research/google-research, "
    "performer/fast_attention; github.com/lucidrains/performer-pytorch",
    version=1,
    summary="Estimates softmax attention from positive random features, orthogonal in blocks.",
    formula="phi(q) sum_j phi(k_j)' v_j / phi(q) sum_j phi(k_j)', "
    "phi_r(x) = exp(w_r x' / d^(1/4) - |x|^2 / (2 sqrt(d)))",
    family="linear",
    attention_map="row_stochastic",
    settings={"features": 0, "draw": "fixed", "eps": 0.0},
    choices={"draw": ("fixed", "resampled")},
    noise=("features",),
    cost="linear",
    extra_parameters="none learned; features x head_dim frozen numbers a layer when fixed",
    pretrained="lossy",
    caveats=(
        "The estimate's relative variance grows like exp(|q + k|^2 / sqrt(d)) / features: it follows softmax only "
        "while queries and keys are short.",
        "With draw resampled the network is stochastic, which defeats attacks that do not average over its noise.",
        "Under a causal mask a query all of whose keys are far from every random row (|w - k|^2 above 1400) reads 0.",
    ),
)
