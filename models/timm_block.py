"""One block of a timm model with a core in place of its softmax attention; every weight stays where timm keeps it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.attention import Attention, AttentionRope
from timm.layers.norm import RmsNorm, RmsNormFp32
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .attention import QKV, Context, Merges, attended
from .block import block_noise, kept
from .noise import Noise
from .norm import without_affine
from .site import Site

BLOCKS = (Block, EvaBlock)
"""Blocks whose attention can be replaced."""
ATTENTIONS = (Attention, AttentionRope, EvaAttention)
"""Attentions whose projections are understood."""
NORMS = (nn.LayerNorm, RmsNorm, RmsNormFp32)
"""Norms whose affine part can be taken off."""


def names(*kinds: type) -> str:
    """Return the names of some classes for a message, each with its module: timm has several of a name.

    >>> names(Block, EvaBlock)
    'vision_transformer.Block, eva.EvaBlock'
    """
    return ", ".join(f"{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}" for kind in kinds)


def block_fault(block: nn.Module) -> str:
    """Return why a block cannot carry a core, with what can; an empty string where it can.

    Types are compared exactly: a subclass may compute something else from the same weights.
    """
    if type(block) not in BLOCKS:
        return f"its blocks are {names(type(block))}; supported are {names(*BLOCKS)}, both exactly, no subclass"
    attention = cast(Any, block).attn
    if type(attention) not in ATTENTIONS:
        return f"its blocks attend with {names(type(attention))}; supported are {names(*ATTENTIONS)}"
    if not isinstance(block.norm1, NORMS):
        return f"its attention reads through {names(type(block.norm1))}; supported are {names(*NORMS)}"
    return ""


def read_through(norm: Any, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
    """Return what a norm makes of the stream before its learned gain and bias."""
    if isinstance(norm, nn.LayerNorm):
        return without_affine(norm, x)
    return x if isinstance(norm, nn.Identity) else F.rms_norm(x, (x.shape[-1],), eps=norm.eps)


def read_through_pool(
    norm: Any, x: Float[Tensor, "batch token dim"], pooled: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch token dim"]:
    """Return the tokens whose mean is what a norm behind a mean pool makes of it before its learned gain and bias.

    That norm centres and divides the pooled vector. Centring commutes with the mean; the divisor is one number a
    sample, the pooled vector's, so the tokens keep their angles.
    """
    whole = pooled[:, None]
    if isinstance(norm, nn.LayerNorm):
        x, whole = x - x.mean(-1, keepdim=True), whole - whole.mean(-1, keepdim=True)
    spread = whole.square().mean(-1, keepdim=True).add(norm.eps).sqrt()
    return x / spread


def projected(attention: Any, x: Float[Tensor, "batch token dim"], rope: Tensor | None) -> QKV:
    """Return queries, keys and values by head as timm makes them: norms of q and k and rotation included.

    Keys and values that several heads share are repeated, so that every head has its own.
    """
    flat: tuple[Tensor, ...]
    if attention.qkv is None:
        flat = (attention.q_proj(x), attention.k_proj(x), attention.v_proj(x))
    elif getattr(attention, "q_bias", None) is None:
        flat = attention.qkv(x).chunk(3, -1)
    else:
        bias = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
        flat = F.linear(x, attention.qkv.weight, bias).chunk(3, -1)
    q, k, v = (part.view(*x.shape[:2], -1, attention.head_dim).transpose(1, 2) for part in flat)
    q, k = attention.q_norm(q), attention.k_norm(k)
    if rope is not None:
        q, k = _rotated(attention, q, rope).type_as(v), _rotated(attention, k, rope).type_as(v)
    sharing = q.shape[1] // k.shape[1]
    return QKV(q, k.repeat_interleave(sharing, 1), v.repeat_interleave(sharing, 1)) if sharing > 1 else QKV(q, k, v)


def _rotated(attention: Any, q: Tensor, rope: Tensor) -> Tensor:
    prefix = attention.num_prefix_tokens
    turned = apply_rot_embed_cat(q[:, :, prefix:], rope, half=attention.rotate_half)
    return torch.cat((q[:, :, :prefix], turned), 2)


class SwappedBlock(NamedTuple):
    """A timm block and the core that attends in it; it owns neither."""

    site: Site
    """Where the block sits."""
    block: Any
    """A `Block` or an `EvaBlock`."""
    core: nn.Module
    """The attention mechanism."""
    rope: Tensor | None = None
    """Rotation of queries and keys, None where there is none."""

    @property
    def drop_path(self) -> float:
        """Probability of dropping a branch for a sample while training."""
        return float(getattr(self.block.drop_path1, "drop_prob", 0.0))

    def noise(self) -> tuple[Noise, ...]:
        """Return what this block draws."""
        return block_noise(self.core, self.drop_path)

    def __call__(
        self,
        x: Float[Tensor, "batch token dim"],
        first: QKV | None,
        previous: QKV | None,
        noise: Mapping[str, Tensor],
        calibrating: bool = False,
    ) -> tuple[Tensor, QKV]:
        """Return the new stream, and the queries, keys and values that the core was given."""
        block, rate = self.block, self.drop_path
        drops = noise["drop_path"] if block.training and rate > 0 else None
        read = block.norm1(x)
        qkv = projected(block.attn, read, self.rope)
        y = self._attended(qkv, Context(read, x, None, first, previous, noise), calibrating)
        x = x + kept(_scaled(block, "1", y), rate, None if drops is None else drops[:, 0])
        y = _scaled(block, "2", block.mlp(block.norm2(x)))
        return x + kept(y, rate, None if drops is None else drops[:, 1]), qkv

    def _attended(self, qkv: QKV, ctx: Context, calibrating: bool) -> Tensor:
        """Return what is added to the stream: the outputs after inner norm, gate, output projection and merge."""
        attention, site = self.block.attn, self.site
        y = attended(self.core, qkv, ctx, heads=site.heads, head_dim=site.head_dim, calibrating=calibrating)
        y = attention.norm(y)
        gate = getattr(attention, "gate", None)
        if gate is not None:
            y = y * gate(ctx.x).sigmoid()
        y = attention.proj(y)
        return self.core.merge(y, ctx.x, ctx.residual) if isinstance(self.core, Merges) else y


def _scaled(block: Any, branch: str, y: Tensor) -> Tensor:
    """Return a branch after its LayerScale, where the block has one."""
    if isinstance(block, EvaBlock):
        gamma = getattr(block, f"gamma_{branch}")
        return y if gamma is None else y * gamma
    scaled: Tensor = getattr(block, f"ls{branch}")(y)
    return scaled
