"""p-Laplacian attention: a token listens more (p below 2) or less (above 2) to tokens whose values are like its own."""

from torch import Tensor, nn

from ..attention import Context
from ..kernel_density import squared_distance
from ..site import Site
from ..variant import Variant
from ..visibility import softmax_over, visible_keys


class PLaplacianAttention(nn.Module):
    """sum_j A_ij s_ij v_j / sum_j A_ij s_ij, s_ij = (|v_i - v_j|^2 + softening^2)^(p / 2 - 1), after arXiv:2311.03235.

    A is softmax attention; p = 2 gives it back. The paper's formula was not read at its source: a secondary text has
    attention weights multiplied by |v_i - v_j|^(p - 2). The rest is derived here. The functional
    sum_ij A_ij |v_i - v_j|^p has at v_i the slope p sum_j A_ij |v_i - v_j|^(p - 2) (v_i - v_j) up to the symmetry of A,
    and a step against it of the length that p = 2 needs to reach A v is the quotient above.

    For p below 2 the factor of a token to itself is infinite without a softening, and the output would be v_i. The
    softening, in units of the values, says how much larger it is than the others'.
    """

    def __init__(self, site: Site, p: float = 1.5, softening: float = 0.1) -> None:
        super().__init__()
        if p < 1 or softening <= 0:
            raise ValueError(
                f"p_laplacian with p {p} and softening {softening}: allowed are p from 1 and a softening above 0; set "
                "them inside these ranges"
            )
        self.site = site
        self.p = p
        self.softening = softening

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        logits = self.site.scale * q @ k.transpose(-2, -1) + self._log_factor(v).to(q.dtype)
        return softmax_over(logits, visible_keys(q, ctx, self.site.causal)) @ v

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale q k' + log s."""
        return self.site.scale * q @ k.transpose(-2, -1) + self._log_factor(v).to(q.dtype)

    def _log_factor(self, v: Tensor) -> Tensor:
        return (self.p / 2 - 1) * (squared_distance(v, v) + self.softening**2).log()


P_LAPLACIAN = Variant(
    name="p_laplacian",
    core=PLaplacianAttention,
    source="Nguyen, Nguyen, Nguyen and Nguyen 2023, arXiv:2311.03235, not read beyond its abstract; normalisation "
    "derived here",
    version=1,
    summary="Multiplies attention by a power of the distance between values, so tokens listen to those like them.",
    formula="softmax(q k' / sqrt(d) + (p / 2 - 1) log(|v_i - v_j|^2 + softening^2)) v",
    family="p_laplacian",
    attention_map="row_stochastic",
    settings={"p": 1.5, "softening": 0.1},
    logits=True,
    cost="matrix",
    pretrained="lossy",
    caveats=(
        "The paper's own normalisation, its values of p and how it treats a token's distance 0 to itself were not "
        "read; do not quote this row as the paper's.",
        "With p below 2 a token attends most to itself, and the softening decides how much: the effect on collapse may "
        "be that of a stronger residual branch.",
    ),
)
