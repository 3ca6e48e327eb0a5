"""Re-attention: each head's map is a learned mixture of all heads' maps, standardised to stay diverse."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..attention import Context
from ..head_mixing import mixed_heads
from ..initial_value import Generators
from ..site import Site
from ..variant import Reported, Variant
from ..visibility import softmax_over, visible_keys


class ReAttention(nn.Module):
    """Norm(sum_h T_hg A_h) v_g with A softmax attention, DeepViT, arXiv:2103.11886.

    The released code (models/layers.py in github.com/zhoudaquan/dvit_repo) has a 1 x 1 convolution over heads and a
    batch norm, one mean and variance a head over all maps of the batch, running averages at inference: `batch`.
    `sample` takes them over the one map of each sample, in training and at inference, so that samples stay apart.
    `none` has no norm, which the README's first table ("FC") reports and the released class cannot build. The
    convolution's bias cancels in the norm and is left out; T is drawn as there, uniform within 1 / sqrt(heads), or is
    the identity where no norm follows.

    The released class can scale the normed maps by 1 / sqrt(d) (`transform_scale`); the gain of the norm can learn it.

    A normed map has mean 0 at first: entries of masked keys are set to zero after it and do not count in it. Under a
    causal mask the norm would look at later tokens, so only `none` is allowed there.
    """

    def __init__(self, site: Site, norm: Literal["sample", "batch", "none"] = "sample") -> None:
        super().__init__()
        if site.causal and norm != "none":
            raise ValueError(
                f"re_attention with norm {norm!r} under a causal mask: the norm's statistics look at later tokens; "
                "allowed there: 'none'; set norm to 'none' or use a network without a causal mask"
            )
        self.site = site
        self.normed = norm != "none"
        self.mixture = nn.Parameter(torch.eye(site.heads))
        self.batch_norm = nn.BatchNorm2d(site.heads) if norm == "batch" else None
        self.gain = nn.Parameter(torch.ones(site.heads)) if norm == "sample" else None
        self.shift = nn.Parameter(torch.zeros(site.heads)) if norm == "sample" else None

    def draw(self, generators: Generators) -> None:
        """Draw the mixture, unless it starts as the identity."""
        if self.normed:
            drawn = torch.rand(self.mixture.shape, generator=generators("mixture"))
            self.mixture.copy_((2 * drawn - 1) / self.site.heads**0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if self.batch_norm is not None and ctx.mask is not None:
            raise ValueError(
                "re_attention with norm 'batch' and a mask of tokens: masked tokens would count in the batch's "
                "statistics; allowed there: 'sample' and 'none'; set norm to one of them"
            )
        seen = visible_keys(q, ctx, self.site.causal)
        maps = mixed_heads(softmax_over(self.site.scale * q @ k.transpose(-2, -1), seen), self.mixture)
        if self.batch_norm is not None:
            maps = self.batch_norm(maps)
        elif self.gain is not None and self.shift is not None:
            real = seen if ctx.mask is None else seen & ctx.mask[:, None, :, None]
            gain, shift = (x.to(maps.dtype)[:, None, None] for x in (self.gain, self.shift))
            maps = (gain * standardised(maps, real) + shift) * seen
        return maps.to(v.dtype) @ v


def standardised(
    maps: Float[Tensor, "batch head query key"], real: Bool[Tensor, "#batch 1 query key"]
) -> Float[Tensor, "batch head query key"]:
    """Subtract each map's mean and divide by its standard deviation, both over the real pairs (epsilon 1e-5)."""
    x = maps.to(torch.promote_types(maps.dtype, torch.float32))
    count = real.sum((-2, -1), keepdim=True).clamp(min=1)
    x = x - (x * real).sum((-2, -1), keepdim=True) / count
    variance = (x.square() * real).sum((-2, -1), keepdim=True) / count
    return (x * (variance + 1e-5).rsqrt()).to(maps.dtype)


RE_ATTENTION = Variant(
    name="re_attention",
    core=ReAttention,
    source="Zhou et al. 2021, DeepViT, arXiv:2103.11886; github.com/zhoudaquan/dvit_repo",
    version=1,
    summary="Replaces each head's attention map by a learned mixture of all heads' maps, standardised.",
    formula="Norm(sum_h T_hg softmax(q_h k_h' / sqrt(d))) v_g",
    family="head_mixing",
    attention_map="signed",
    settings={"norm": "sample"},
    choices={"norm": ("sample", "batch", "none")},
    causal="prefix",
    coupling_settings={"norm": "batch"},
    cost="matrix",
    extra_parameters="heads x heads + 2 heads a layer, heads x heads with norm none",
    pretrained="lossy",
    caveats=(
        "The default norm is over each sample's own map; the authors' batch norm, norm batch, mixes the samples of a "
        "training batch.",
        "With norm batch, checkpointing updates the running mean and variance twice a step.",
        "The released networks re-attend in all blocks, or in the last 5 of 16 and 12 of 32.",
    ),
    reported=(
        Reported(
            value=80.90,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, 32 layers of width 384, no norm (softmax there: 79.27)",
            protocol="the authors' recipe; number of seeds not stated",
            source="README of github.com/zhoudaquan/dvit_repo",
        ),
        Reported(
            value=79.10,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, 16 layers of width 384, no norm (softmax there: 78.88)",
            protocol="the authors' recipe; number of seeds not stated",
            source="README of github.com/zhoudaquan/dvit_repo",
        ),
    ),
)
