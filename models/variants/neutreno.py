"""NeuTRENO: every output is pulled from the layer's own values towards those of the first layer."""

from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Variant


class NeutrenoAttention(nn.Module):
    """A v + lambda (v_first - v) with A softmax attention, arXiv:2312.00751; `strength` is the paper's lambda.

    v_first are the values of layer 0, where the term vanishes and attention is plain.
    """

    def __init__(self, site: Site, strength: float = 0.6) -> None:
        super().__init__()
        self.site = site
        self.strength = strength

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        y = softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)
        return y if ctx.first is None else y + self.strength * (ctx.first.v - v)


NEUTRENO = Variant(
    name="neutreno",
    core=NeutrenoAttention,
    source="Nguyen, Nguyen and Baraniuk 2023, arXiv:2312.00751; github.com/tamnguyen9520/NeuTRENO_NeurIPS2024",
    version=1,
    summary="Adds a fidelity term that pulls each output towards the token's values in the first layer.",
    formula="A v + strength (v_first - v), A = softmax(q k' / sqrt(d))",
    family="neutreno",
    attention_map="signed",
    settings={"strength": 0.6},
    layer_state=("first",),
    cost="fused",
    pretrained="lossy",
)
