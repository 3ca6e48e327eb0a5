"""Focused linear attention: features are pushed towards the axes, and a small convolution restores local detail."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Context
from ..linear_attention import linear_attention
from ..site import Site
from ..variant import Variant


class FocusedLinearAttention(nn.Module):
    """phi(q) sum_j phi(k_j)' v_j / phi(q) sum_j phi(k_j)' + conv(v), FLatten, section 4 of arXiv:2308.00442.

    phi(x) = |r| r^p / |r^p| with r = (relu(x) + 1e-6) / softplus(s): powers coordinate by coordinate point the feature
    at the axes, the factor gives it back its length. s is learned, one number for each coordinate of each head, from 0.
    A learned table of positions, from 0, is added to the keys first (`positions`). conv is a depthwise convolution over
    the grid of patches, one filter for each coordinate, shared by the heads. These are all in the released code
    (github.com/LeapLabTHU/FLatten-Transformer: p = 3, 5 x 5); the paper's equations were not read at their source.

    `length`: lengths are taken over all heads of a token together (`token`), as in the released code, or head by head
    (`head`). A factor that a query has in all coordinates of a head cancels, so only the keys feel the difference. The
    released code adds 1e-6 to the mean of a query's weights, and so does this one.

    Tokens in front that stand for no patch attend like the others; the convolution neither reads nor changes them.
    Masked patches are zeros to the convolution. Its filters start as the host draws every weight (Xavier, zero bias);
    in the released code they start uniform within 1 / kernel, bias included.
    """

    def __init__(
        self,
        site: Site,
        power: float = 3.0,
        kernel: int = 5,
        length: Literal["token", "head"] = "token",
        positions: Literal["learned", "none"] = "learned",
    ) -> None:
        super().__init__()
        if site.causal:
            raise ValueError(
                "focused_linear under a causal mask: its convolution looks at later patches; allowed are bidirectional "
                "networks; use linear instead"
            )
        if site.grid is None or site.prefix_tokens + site.grid[0] * site.grid[1] != site.tokens:
            raise ValueError(
                f"focused_linear on {site.tokens} tokens with the grid {site.grid}: its convolution needs a grid of "
                f"all tokens but the first {site.prefix_tokens}; use it where patches form one"
            )
        if power < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"focused_linear with power {power} and kernel {kernel}: allowed are powers from 1 and odd kernels; "
                "set them so"
            )
        self.site = site
        self.grid = site.grid
        self.power = power
        self.over = (1, 3) if length == "token" else (3,)
        self.scale = nn.Parameter(torch.zeros(site.heads, 1, site.head_dim))
        self.position = (
            nn.Parameter(torch.zeros(site.heads, site.tokens, site.head_dim)) if positions != "none" else None
        )
        self.conv = nn.Conv2d(site.head_dim, site.head_dim, kernel, padding=kernel // 2, groups=site.head_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if q.shape[-2] != self.site.tokens:
            raise ValueError(
                f"focused_linear on {q.shape[-2]} tokens: its convolution has the grid {self.grid}; allowed: "
                f"{self.site.tokens} tokens, for which it was built; use inputs of one size"
            )
        if self.position is not None:
            k = k + self.position.to(k.dtype)
        count = q.new_tensor(q.shape[-2]) if ctx.mask is None else ctx.mask.sum(-1)[:, None, None, None]
        eps = 1e-6 * count.to(torch.promote_types(q.dtype, torch.float32))
        q, k = self._features(q), self._features(k)
        y = linear_attention(q, k, v, causal=False, mask=ctx.mask, eps=eps.expand(len(q), 1, 1, 1))
        return y + self._local(v, ctx)

    def _features(self, x: Tensor) -> Tensor:
        """Return phi(x) in float32 or wider; powers are taken of numbers from 0 to 1, which cannot overflow."""
        wide = torch.promote_types(x.dtype, torch.float32)
        r = (x.to(wide).relu() + 1e-6) / F.softplus(self.scale.to(wide))
        focused = (r / r.amax(self.over, keepdim=True)) ** self.power
        before, after = (torch.linalg.vector_norm(a, dim=self.over, keepdim=True) for a in (r, focused))
        features: Tensor = focused * (before / after)
        return features

    def _local(self, v: Tensor, ctx: Context) -> Tensor:
        """Return the convolved values of the patches, zeros in front for the tokens that are none."""
        if ctx.mask is not None:
            v = torch.where(ctx.mask[:, None, :, None], v, 0)
        batch, heads, tokens, width = v.shape
        front = self.site.prefix_tokens
        image = v[:, :, front:].reshape(batch * heads, *self.grid, width).permute(0, 3, 1, 2)
        weight, bias = self.conv.weight.to(v.dtype), self.conv.bias
        image = F.conv2d(
            image,
            weight,
            None if bias is None else bias.to(v.dtype),
            padding=self.conv.kernel_size[0] // 2,
            groups=width,
        )
        return F.pad(image.flatten(2).transpose(1, 2).reshape(batch, heads, tokens - front, width), (0, 0, front, 0))


FOCUSED_LINEAR = Variant(
    name="focused_linear",
    core=FocusedLinearAttention,
    source="Han et al. 2023, arXiv:2308.00442, section 4, as in github.com/LeapLabTHU/FLatten-Transformer",
    version=1,
    summary="Linear attention with sharpened features, a learned scale and a depthwise convolution of the values.",
    formula="phi(q) sum_j phi(k_j)' v_j / phi(q) sum_j phi(k_j)' + conv(v), phi(x) = |r| r^3 / |r^3|, "
    "r = (relu(x) + 1e-6) / softplus(s)",
    family="linear",
    attention_map="implicit",
    settings={"power": 3.0, "kernel": 5, "length": "token", "positions": "learned"},
    choices={"length": ("token", "head"), "positions": ("learned", "none")},
    causal="no",
    equivariant=False,
    minimum_tokens=64,
    needs_grid=True,
    cost="linear",
    extra_parameters="heads x head_dim scales, head_dim x (kernel^2 + 1) for the convolution and tokens x heads x "
    "head_dim positions a layer",
    pretrained="lossy",
    caveats=(
        "Its convolution and its table of positions change what the network sees of places: gains need not come from "
        "its attention.",
        "It is tied to one grid of patches.",
        "Its paper replaces attention in the early stages of hierarchical networks, not in all blocks of a plain one.",
        "Rectified coordinates pass no gradient to queries and keys, which can blind an attack.",
    ),
)
