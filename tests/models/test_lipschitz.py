"""The slope of a layer of attention: bounded for tied L2 attention, unbounded for the others."""

from math import sqrt

import pytest
import torch
from explicit.case import Case
from explicit.distance import CASES as DISTANCES
from explicit.softmax_family import CASES as PLAIN
from scipy.special import lambertw
from torch import Tensor

from attnbench.models.attention import Attention
from attnbench.models.initial_value import draw_initial_values

TIED = next(c for c in DISTANCES if c.name == "l2_tied")
SOFTMAX = next(c for c in PLAIN if c.name == "softmax")
TOKENS, DIM, HEADS, HEAD_DIM = TIED.tokens, 11, TIED.heads, TIED.head_dim


def layer(case: Case) -> Attention:
    host = Attention(case.site(), case.variant.core(case.site())).double()
    draw_initial_values(host, 3)
    return host


def steepness(host: Attention, x: Tensor) -> float:
    """Spectral norm of the layer's Jacobian at x, the inputs of all tokens taken as one vector."""

    def outputs(flat: Tensor) -> Tensor:
        tokens = flat.view(1, TOKENS, DIM)
        y, _ = host(tokens, tokens, None, None, None, {})
        return y.flatten()

    jacobian = torch.autograd.functional.jacobian(outputs, x.flatten())
    assert isinstance(jacobian, Tensor)
    return float(torch.linalg.matrix_norm(jacobian, 2))


def bound(host: Attention) -> float:
    """Theorem 3.2 of arXiv:2006.04710; c exp(c + 1) = N - 1 has the solution W((N - 1) / e)."""
    norms = [torch.linalg.matrix_norm(w.weight.view(HEADS, HEAD_DIM, DIM), 2) for w in (host.q, host.v)]
    c = float(lambertw((TOKENS - 1) / torch.e).real)
    weights = (norms[0] ** 4 * norms[1] ** 2).sum().sqrt() * torch.linalg.matrix_norm(host.out.weight, 2)
    return sqrt(TOKENS / HEAD_DIM) * (4 * c + 1) * float(weights.detach())


def adversarial(size: float, seed: int) -> Tensor:
    """Tokens of some size, the first at zero: where softmax attention is steepest."""
    x = torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[0] = 0
    return size * x


@pytest.mark.parametrize("seed", range(3))
def test_tied_l2_attention_is_nowhere_steeper_than_its_bound(seed: int) -> None:
    host = layer(TIED)
    steepest = max(steepness(host, adversarial(size, seed)) for size in (0, 0.3, 1, 3, 10, 100, 1e4))
    assert 0 < steepest <= bound(host)


@pytest.mark.parametrize("factor", [10.0, 100.0])
def test_the_slope_and_the_bound_of_tied_l2_attention_grow_with_the_square_of_the_query_weights(factor: float) -> None:
    """Weights s W at inputs X / s give the same distances and s times the outputs, whose slope in X is s^2 times."""
    host, scaled = layer(TIED), layer(TIED)
    with torch.no_grad():
        scaled.q.weight.mul_(factor)
    slope = steepness(host, adversarial(1, 0))
    assert steepness(scaled, adversarial(1 / factor, 0)) == pytest.approx(factor**2 * slope, rel=1e-9)
    assert bound(scaled) == pytest.approx(factor**2 * bound(host), rel=1e-9)


def test_softmax_attention_is_the_steeper_the_larger_its_inputs() -> None:
    """At a token of size zero all logits are 0 whatever the others' size, and their slope grows with it squared."""
    host = layer(SOFTMAX)
    small, large = (steepness(host, adversarial(size, 0)) for size in (10.0, 1000.0))
    assert large > 1e3 * small


def test_queries_are_keys_and_have_one_projection() -> None:
    host = layer(TIED)
    q, k, _ = host.project(adversarial(1, 0)[None])
    assert q is k
    assert "k.weight" not in dict(host.named_parameters())
