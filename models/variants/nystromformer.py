"""Nyströmformer: the softmax map is rebuilt from a few of its rows and columns, at landmarks that average tokens."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Variant


class NystromAttention(nn.Module):
    """softmax(q l_k') Z softmax(l_q k') v + conv(v), Z near the pseudo-inverse of softmax(l_q l_k'), arXiv:2102.03902.

    Logits have the factor 1 / sqrt(d). The landmarks l_q and l_k are means of queries and keys over segments of
    consecutive tokens. The released code for text cuts equal segments; where the tokens cannot be shared evenly, the
    last segments are longer by one, as in its vision code (github.com/mlpen/Nystromformer, T2T-ViT). With as many
    landmarks as tokens it is softmax, as there. conv is a depthwise convolution along the tokens, one filter for each
    head (`kernel` 33 there for text of 512 tokens, 35 on long sequences, 0, which is none, in vision).

    Z comes from `iterations` (6) of a cubic iteration that starts at a multiple of the transposed matrix: over the
    largest column sum of that sample and head (`start="sample"`), as in the vision code, or of the whole batch
    (`batch`), which the code for text takes unless the option against it is given under two spellings, and which mixes
    the samples of a batch.

    Masked tokens are zeros in the landmarks and in the convolution, and no key; a segment's mean still divides by its
    whole length, as in the released code. Landmarks look at later tokens, so there is no causal form. The filters start
    as the host draws every weight (Xavier); in the released code they start uniform within 1 / sqrt(kernel).
    """

    def __init__(
        self,
        site: Site,
        landmarks: int = 32,
        iterations: int = 6,
        kernel: int = 33,
        start: Literal["sample", "batch"] = "sample",
    ) -> None:
        super().__init__()
        if site.causal:
            raise ValueError(
                "nystromformer under a causal mask: landmarks are means over later tokens; allowed are bidirectional "
                "networks; use linear or performer instead"
            )
        if not 1 <= landmarks <= site.tokens:
            raise ValueError(
                f"nystromformer with {landmarks} landmarks on {site.tokens} tokens: allowed are 1 to {site.tokens}; "
                "set landmarks in that range"
            )
        if iterations < 0 or kernel < 0 or (kernel and kernel % 2 == 0):
            raise ValueError(
                f"nystromformer with {iterations} iterations and kernel {kernel}: allowed are 0 or more iterations and "
                "an odd kernel, or 0 for none; set them so"
            )
        self.site = site
        self.landmarks = landmarks
        self.iterations = iterations
        self.start = start
        self.conv = (
            nn.Conv2d(site.heads, site.heads, (kernel, 1), padding=(kernel // 2, 0), bias=False, groups=site.heads)
            if kernel
            else None
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if q.shape[-2] < self.landmarks:
            raise ValueError(
                f"nystromformer with {self.landmarks} landmarks on {q.shape[-2]} tokens: allowed are as many tokens or "
                "more; set fewer landmarks"
            )
        if ctx.mask is not None:
            q, k, v = (torch.where(ctx.mask[:, None, :, None], x, 0) for x in (q, k, v))
        if q.shape[-2] == self.landmarks:
            y = softmax_attention(q, k, v, scale=self.site.scale, mask=ctx.mask)
        else:
            y = self._through_landmarks(q, k, v, ctx)
        if self.conv is None:
            return y
        weight = self.conv.weight.to(v.dtype)
        return y + F.conv2d(v, weight, padding=(weight.shape[2] // 2, 0), groups=self.site.heads).to(y.dtype)

    def _through_landmarks(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        queries, keys = (segment_means(x, self.landmarks) for x in (q, k))
        scale = self.site.scale
        gathered = softmax_attention(queries, k, v, scale=scale, mask=ctx.mask)
        wide = torch.promote_types(v.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):
            queries, keys, q = queries.to(wide), keys.to(wide), q.to(wide)
            between = (scale * queries @ keys.transpose(-2, -1)).softmax(-1)
            spread = (scale * q @ keys.transpose(-2, -1)).softmax(-1)
            inverse = pseudo_inverse(between, self.iterations, self.start == "batch")
            return (spread @ (inverse @ gathered.to(wide))).to(v.dtype)


def segment_means(x: Float[Tensor, "batch head token dim"], segments: int) -> Float[Tensor, "batch head segment dim"]:
    """Means over consecutive segments of equal length, the last ones longer by one where they cannot all be equal.

    >>> segment_means(torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1), 2).flatten().tolist()
    [1.0, 4.0]
    """
    length, longer = divmod(x.shape[-2], segments)
    short = (segments - longer) * length
    means = _means(x[..., :short, :], length)
    if not longer:
        return means
    return torch.cat((means, _means(x[..., short:, :], length + 1)), -2)


def _means(x: Tensor, length: int) -> Tensor:
    return x.reshape(*x.shape[:2], -1, length, x.shape[-1]).mean(-2)


def pseudo_inverse(
    x: Float[Tensor, "batch head row row"], iterations: int, one_start: bool
) -> Float[Tensor, "batch head row row"]:
    """Approach the pseudo-inverse of matrices with non-negative rows that sum to 1, the iteration of arXiv:2102.03902.

    Starts at x' over the largest column sum, of each matrix or, if `one_start`, of them all. The error cubes with every
    iteration once it is small; small singular values take the longest.
    """
    sums = x.sum(-2, keepdim=True)
    z = x.transpose(-2, -1) / (sums.amax() if one_start else sums.amax(-1, keepdim=True))
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        xz = x @ z
        z = z @ (13 * eye - xz @ (15 * eye - xz @ (7 * eye - xz))) / 4
    return z


NYSTROMFORMER = Variant(
    name="nystromformer",
    core=NystromAttention,
    source="Xiong et al. 2021, arXiv:2102.03902; github.com/mlpen/Nystromformer",
    version=1,
    summary="Replaces the softmax map by a product of three small ones through landmarks, the means of segments.",
    formula="softmax(q l_k' / sqrt(d)) pinv(softmax(l_q l_k' / sqrt(d))) softmax(l_q k' / sqrt(d)) v + conv(v)",
    family="nystrom",
    attention_map="signed",
    settings={"landmarks": 32, "iterations": 6, "kernel": 33, "start": "sample"},
    choices={"start": ("sample", "batch")},
    causal="no",
    coupling_settings={"start": "batch"},
    equivariant=False,
    minimum_tokens=64,
    cost="linear",
    extra_parameters="heads x kernel a layer for the convolution",
    pretrained="lossy",
    caveats=(
        "Segments and the convolution follow the tokens' order, in which patches above each other lie far apart.",
        "After 6 iterations the inverse is far from exact where the landmarks' map is nearly singular.",
        "With start batch, as in the released code for text, a sample's output depends on its batch.",
    ),
)
