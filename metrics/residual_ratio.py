"""How far the tokens of one input are from all being the same: the share of their size that their mean leaves over."""

from jaxtyping import Bool, Float
from torch import Tensor

from .metric import Metric


def residual_ratio(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"] | None = None
) -> Float[Tensor, " batch"]:
    """Return |X - 1 mean(X)'|_F / |X|_F, by input.

    0 for identical tokens, 1 for tokens of mean zero. Masked tokens are left out; NaN for an input with fewer than two
    tokens or with tokens of zero only. For unit tokens it equals sqrt((1 - c) (N - 1) / N) with their token cosine c,
    so on the normalised stream it is the same measurement as `token_cosine` and no second witness.

    Source: Dong et al. 2021, arXiv:2103.03404, section 2, whose residual takes the closest 1 x' in a composite norm;
    here the norm is Frobenius, for which the closest is the mean.

    >>> import torch
    >>> found = residual_ratio(torch.tensor([[[3.0, 4.0], [3.0, -4.0]]]))  # residual 4, 4 of tokens of length 5, 5
    >>> round(found.item(), 12)
    0.8
    """
    wide = tokens.double()
    if mask is None:
        count = wide.new_full((len(wide),), wide.shape[1])
    else:
        wide = wide.where(mask[..., None], 0.0)
        count = mask.sum(-1).double()
    residual = wide - (wide.sum(1) / count.clamp(min=1)[:, None])[:, None]
    if mask is not None:
        residual = residual.where(mask[..., None], 0.0)
    size = wide.square().sum((1, 2)).sqrt()
    ratio = residual.square().sum((1, 2)).sqrt() / size
    return ratio.clamp(max=1).where((count > 1) & (size != 0), float("nan"))


RESIDUAL_RATIO = Metric(
    name="residual_ratio",
    measure=residual_ratio,
    needs="tokens",
    version=1,
    axis="token",
    unit="1",
    better="neither",
    lowest=0.0,
    highest=1.0,
    null="sqrt(1 - 1 / N) for isotropic tokens",
    definition="|X - 1 mean(X)'|_F / |X|_F over the tokens X (N x d) of one input, then the mean over inputs; for unit "
    "tokens sqrt((1 - token_cosine) (N - 1) / N); undefined below two tokens or for tokens of zero only",
    source="Dong et al. 2021, arXiv:2103.03404, section 2, in the Frobenius norm",
    hook_point="read",
)
