"""Twicing attention: what the first smoothing left over is smoothed again and added back."""

from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Reported, Variant


class TwicingAttention(nn.Module):
    """A v + A (v - A v) = (2 A - A^2) v with A softmax attention, arXiv:2503.00687.

    Two fused calls with the same queries and keys; rows of 2 A - A^2 still sum to 1, but entries may be negative.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        y = self._smoothed(q, k, v, ctx)
        return y + self._smoothed(q, k, v - y, ctx)

    def _smoothed(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


TWICING = Variant(
    name="twicing",
    core=TwicingAttention,
    source="Abdullaev and Nguyen 2025, arXiv:2503.00687; github.com/lazizcodes/twicing_attention",
    version=1,
    summary="Smooths the residual of the first smoothing again and adds it back, so middle frequencies survive.",
    formula="(2 A - A^2) v, A = softmax(q k' / sqrt(d))",
    family="twicing",
    attention_map="signed",
    cost="fused",
    pretrained="lossy",
    reported=(
        Reported(
            value=42.92,
            unit="perplexity",
            of="WikiText-103 test with swapped words (softmax in the same table: 43.03)",
            protocol="the authors' word swap at a rate other than in their earlier papers; one seed",
            source="secondary text on arXiv:2503.00687",
        ),
        Reported(
            value=69.6,
            unit="perplexity",
            of="WikiText-103 test, small model (softmax 72.2, wider softmax with as many parameters 69.0)",
            protocol="independent replication, trained on 10 million tokens",
            source="secondary text on arXiv:2604.03190",
        ),
    ),
)
