"""Softmax at a donor's temperature: plain attention whose logits spread as far as those of another variant."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..logit_spread import spread
from ..site import Site
from ..variant import Variant


class MatchedSoftmaxAttention(nn.Module):
    """softmax(f q k' / sqrt(d)) v with one factor f a head that gives the logits the donor's spread.

    `calibrate` sets f to the donor's spread over the network's own, so f follows the training and is frozen at its end;
    it is 1 (plain softmax) before the first calibration, and where the network's own logits do not spread at all. What
    a donor gains over this control does not come from its temperature.
    """

    factor: Tensor
    """Factor on the logits, `[head]`."""
    target: Tensor
    """The donor's logit spread in this layer, `[head]`."""

    def __init__(self, site: Site, donor: str, logit_spread: Float[Tensor, " head"]) -> None:
        super().__init__()
        self.site = site
        self.donor = donor
        if logit_spread.shape != (site.heads,) or not bool((logit_spread.isfinite() & (logit_spread >= 0)).all()):
            raise ValueError(
                f"softmax_matched to {donor!r} in layer {site.layer}: logit spread {logit_spread.tolist()}; allowed: "
                f"{site.heads} finite numbers from 0, one a head; measure it on a donor of the same heads and depth"
            )
        self.register_buffer("factor", torch.ones(site.heads))
        self.register_buffer("target", logit_spread.detach().to(self.factor, copy=True))

    @torch.no_grad()
    def calibrate(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> None:
        """Set the factor from the spread of this batch's plain logits."""
        own = spread(self._plain(q, k))
        flat = own == 0
        self.factor.copy_(torch.where(flat, 1, self.target / torch.where(flat, 1, own)))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q = q * self.factor[:, None, None]
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the factor times scale q k'."""
        return self._plain(q * self.factor[:, None, None], k)

    def _plain(self, q: Tensor, k: Tensor) -> Tensor:
        return self.site.scale * q @ k.transpose(-2, -1)


SOFTMAX_MATCHED = Variant(
    name="softmax_matched",
    core=MatchedSoftmaxAttention,
    source="control for Nielsen et al. 2024, arXiv:2406.13770; not from a paper",
    version=1,
    summary="Softmax attention at the temperature that gives its logits the spread measured on a donor.",
    formula="softmax(f q k' / sqrt(d)) v, f = spread of the donor's logits / spread of q k' / sqrt(d), a head",
    family="softmax",
    attention_map="row_stochastic",
    settings={"donor": "elliptical"},
    extra_parameters="none learned; two frozen numbers a head",
    logits=True,
    cost="fused",
    pretrained="lossy",
    calibrates=True,
    measured=("logit_spread",),
    control_for=("elliptical",),
)
