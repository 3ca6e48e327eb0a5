"""The host attends around any core, and the fused call equals explicit matrices whatever the widths and masks."""

import pytest
import torch
from torch import Tensor, nn

from attnbench.models.attention import QKV, Attention, Context, Weights, softmax_attention
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.site import Site

BATCH, HEADS, TOKENS, HEAD_DIM, DIM = 2, 3, 7, 5, 11
SITE = Site(1, 3, DIM, HEADS, HEAD_DIM, TOKENS, 0, None, False, HEAD_DIM**-0.5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attended(core: nn.Module, first: QKV | None = None, previous: QKV | None = None) -> tuple[Tensor, QKV, Attention]:
    attention = Attention(SITE, core).double()
    draw_initial_values(attention, 0)
    y, qkv = attention(normal(BATCH, TOKENS, DIM), normal(BATCH, TOKENS, DIM, seed=1), None, first, previous, {})
    return y, qkv, attention


class Keeps(nn.Module):
    """Returns the values and keeps what it was shown."""

    shown: Context

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        self.shown = ctx
        return v


class Ties(Keeps):
    """Uses the query projection for the keys as well."""

    def project(self, x: Tensor, weights: Weights) -> QKV:
        q = weights.q(x).view(*x.shape[:2], HEADS, HEAD_DIM).transpose(1, 2)
        v = weights.v(x).view(*x.shape[:2], HEADS, HEAD_DIM).transpose(1, 2)
        return QKV(q, q, v)


class Gates(Keeps):
    """Scales by the input and adds the stream once more."""

    def merge(self, y: Tensor, x: Tensor, residual: Tensor) -> Tensor:
        return y * x + residual


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
@pytest.mark.parametrize("mask", [False, True], ids=["", "mask"])
@pytest.mark.parametrize(("width", "value_width"), [(5, 5), (5, 11), (11, 5)])
def test_the_fused_call_equals_explicit_matrices(width: int, value_width: int, mask: bool, causal: bool) -> None:
    q, k = normal(BATCH, HEADS, TOKENS, width), normal(BATCH, HEADS, TOKENS, width, seed=1)
    v = normal(BATCH, HEADS, TOKENS, value_width, seed=2)
    real = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 1, 1, 1, 1]], dtype=torch.bool)
    logits = 0.37 * q @ k.mT
    if mask:
        logits = logits.masked_fill(~real[:, None, None], -torch.inf)
    if causal:
        logits = logits.masked_fill(torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1), -torch.inf)
    y = softmax_attention(q, k, v, scale=0.37, causal=causal, mask=real if mask else None)
    torch.testing.assert_close(y, logits.softmax(-1) @ v, rtol=0, atol=1e-12)


def test_a_token_that_sees_nothing_real_spoils_neither_outputs_nor_gradients() -> None:
    q, k, v = (normal(BATCH, HEADS, TOKENS, HEAD_DIM, seed=s).requires_grad_() for s in range(3))
    real = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    real[:, 0] = False
    y = softmax_attention(q, k, v, scale=1.0, causal=True, mask=real)
    assert y.isfinite().all()
    y.sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (q, k, v))


def test_without_doors_the_host_projects_by_head_and_projects_back() -> None:
    y, qkv, attention = attended(Keeps())
    x = normal(BATCH, TOKENS, DIM)
    for name, tensor in zip("qkv", qkv, strict=True):
        linear = attention.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        for head in range(HEADS):
            rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            torch.testing.assert_close(tensor[:, head], x @ linear.weight[rows].T + linear.bias[rows])
    concatenated = torch.cat([qkv.v[:, head] for head in range(HEADS)], -1)
    torch.testing.assert_close(y, concatenated @ attention.out.weight.T + attention.out.bias)


def test_a_core_is_shown_the_input_the_stream_and_the_other_layers() -> None:
    first, previous = (QKV(*(normal(BATCH, HEADS, TOKENS, HEAD_DIM, seed=s) for _ in range(3))) for s in (7, 8))
    core = Keeps()
    attended(core, first, previous)
    assert torch.equal(core.shown.x, normal(BATCH, TOKENS, DIM))
    assert torch.equal(core.shown.residual, normal(BATCH, TOKENS, DIM, seed=1))
    assert core.shown.first is first
    assert core.shown.previous is previous


def test_a_core_may_project_in_its_own_way() -> None:
    y, qkv, attention = attended(Ties())
    plain, other, _ = attended(Keeps())
    assert qkv.k is qkv.q
    assert torch.equal(qkv.q, other.q)
    assert not torch.equal(other.k, other.q)
    assert torch.equal(y, plain)
    assert attention.k.weight.grad is None


def test_a_core_may_act_after_the_output_projection() -> None:
    y, _, _ = attended(Gates())
    plain, _, _ = attended(Keeps())
    expected = plain * normal(BATCH, TOKENS, DIM) + normal(BATCH, TOKENS, DIM, seed=1)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
