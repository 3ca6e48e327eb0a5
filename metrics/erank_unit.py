"""How many directions the tokens of one input use: the effective rank of their unit vectors."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .metric import Metric
from .spectrum import hill_number
from .unit_token import unit_tokens


def erank_unit(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"] | None = None
) -> Float[Tensor, " batch"]:
    """Return exp(entropy of the shares of l), l the eigenvalues of the Gram matrix of the unit tokens, by input.

    1 for tokens on one line, whatever their signs, N for N orthogonal ones. Unit length keeps one long token from
    hiding all others. Masked tokens and tokens of length zero are left out; NaN for an input with fewer than two tokens
    left, and for one with a value that is not finite. Of the two Gram matrices, which share their nonzero eigenvalues,
    the smaller is used, in float64.

    Shares of eigenvalues (squared singular values), as in the von Neumann entropy; Roy and Vetterli 2007 take shares of
    singular values, which reads higher.

    >>> two_clusters = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 5.0]]])
    >>> round(erank_unit(two_clusters).item(), 9)
    2.0
    """
    unit, kept = unit_tokens(tokens, mask)
    left = unit.transpose(1, 2) if unit.shape[1] > unit.shape[2] else unit
    gram = left @ left.transpose(1, 2)
    defined = (kept > 1) & gram.isfinite().flatten(1).all(-1)
    values = torch.linalg.eigvalsh(gram.where(defined[:, None, None], 0.0))
    return hill_number(values, 1.0).where(defined, float("nan"))


ERANK_UNIT = Metric(
    name="erank_unit",
    measure=erank_unit,
    needs="tokens",
    version=1,
    axis="token",
    unit="directions",
    better="neither",
    lowest=1.0,
    highest=None,
    null="about n exp(-n / (2 m)) for isotropic tokens, n = min(N, d), m = max(N, d), d the width, less 1 after a "
    "layer norm; coarse for small N and d",
    definition="exp(-sum p log p), p = l / sum l, l the eigenvalues of U U' for the unit tokens U (N x d) of one "
    "input, then the mean over inputs; highest possible value min(N, d); undefined below two tokens of nonzero length",
    source="exponential of the von Neumann entropy; effective rank of Roy and Vetterli 2007 (EUSIPCO) with p from "
    "eigenvalues instead of singular values",
    hook_point="read",
    subsample=256,
)
