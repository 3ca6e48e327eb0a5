"""Known answers of the token metrics: closed forms, identities and independent computations in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnbench.metrics.erank_unit import ERANK_UNIT, erank_unit
from attnbench.metrics.residual_ratio import RESIDUAL_RATIO, residual_ratio
from attnbench.metrics.token_cosine import TOKEN_COSINE, token_cosine
from attnbench.metrics.unit_token import unit_tokens

METRICS = {metric.name: metric for metric in (TOKEN_COSINE, RESIDUAL_RATIO, ERANK_UNIT)}
EXACT = {"abs": 1e-12, "rel": 1e-12}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


def gaussian(seed, *size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed, dim):
    return torch.linalg.qr(gaussian(seed, dim, dim)).Q


def value(measure, tokens, mask=None):
    (number,) = measure(tokens[None], None if mask is None else mask[None]).tolist()
    return number


def equicorrelated(n, c):
    """n unit tokens whose pairwise cosines are all c."""
    gram = torch.full((n, n), c, dtype=torch.float64).fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()


def simplex(n):
    """n tokens of width n - 1 at the corners of a regular simplex around zero."""
    corners = torch.eye(n, dtype=torch.float64) - 1 / n
    return corners @ torch.linalg.eigh(corners).eigenvectors[:, 1:]


sizes = st.tuples(st.integers(2, 11), st.integers(2, 13), st.integers(0, 2**31))
thorough = settings(derandomize=True, deadline=None, max_examples=40)


class TestKnownAnswers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_identical_tokens(self, dtype):
        tokens = gaussian(1, 1, 64).to(dtype).expand(17, 64)
        assert value(token_cosine, tokens) == pytest.approx(1, abs=1e-12)
        assert value(residual_ratio, tokens) == pytest.approx(0, abs=1e-12)
        assert value(erank_unit, tokens) == pytest.approx(1, abs=1e-12)

    def test_orthonormal_rows(self):
        tokens = rotation(2, 13)[:7]
        assert value(token_cosine, tokens) == pytest.approx(0, abs=1e-12)
        assert value(residual_ratio, tokens) == pytest.approx(math.sqrt(1 - 1 / 7), **EXACT)
        assert value(erank_unit, tokens) == pytest.approx(7, **EXACT)

    def test_simplex(self):
        tokens = simplex(7)
        assert value(token_cosine, tokens) == pytest.approx(-1 / 6, **EXACT)
        assert value(residual_ratio, tokens) == pytest.approx(1, **EXACT)
        assert value(erank_unit, tokens) == pytest.approx(6, **EXACT)

    def test_antipodal_pairs_cancel_in_the_cosine_but_stay_on_a_line(self):
        line = gaussian(3, 1, 5)
        tokens = torch.cat([line, line, -line, -line, line, -line])
        assert value(token_cosine, tokens) == pytest.approx(-1 / 5, **EXACT)
        assert value(residual_ratio, tokens) == pytest.approx(1, **EXACT)
        assert value(erank_unit, tokens) == pytest.approx(1, abs=1e-12)

    @pytest.mark.parametrize("dim", [3, 29], ids=["more tokens than width", "fewer tokens than width"])
    def test_rank_one_is_one_direction_in_single_precision_too(self, dim):
        tokens = gaussian(4, 11, 1) * gaussian(5, 1, dim)
        assert value(erank_unit, tokens) == pytest.approx(1, abs=1e-12)
        assert value(erank_unit, tokens.float()) == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("c", [-0.02, 0.0, 0.3, 0.7, 0.99])
    def test_equicorrelated_tokens(self, c):
        # The Gram matrix has eigenvalues 1 + (N - 1) c, once, and 1 - c, N - 1 times.
        n, lengths = 50, gaussian(6, 50, 1).exp()
        shares = np.array([(1 + (n - 1) * c) / n] + [(1 - c) / n] * (n - 1))
        tokens = lengths * equicorrelated(n, c)
        assert value(token_cosine, tokens) == pytest.approx(c, abs=1e-12)
        assert value(erank_unit, tokens) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=1e-10)

    def test_two_clusters_of_equal_size(self):
        tokens = rotation(7, 9)[:2].repeat_interleave(4, 0)
        assert value(token_cosine, tokens) == pytest.approx(2 * 4 * 3 / (8 * 7), **EXACT)
        assert value(residual_ratio, tokens) == pytest.approx(math.sqrt(1 / 2), **EXACT)
        assert value(erank_unit, tokens) == pytest.approx(2, **EXACT)

    def test_one_step_of_uniform_attention_leaves_no_residual(self):
        mixed = torch.full((8, 8), 1 / 8, dtype=torch.float64) @ gaussian(8, 8, 5)
        assert value(residual_ratio, mixed) == pytest.approx(0, abs=1e-15)

    def test_a_lazy_walk_on_a_cycle_shrinks_its_slowest_mode_by_its_eigenvalue(self):
        n, steps = 16, 10
        walk = torch.eye(n, dtype=torch.float64) / 2
        walk += (torch.eye(n).roll(1, 0) + torch.eye(n).roll(-1, 0)).double() / 4
        mode = torch.cos(2 * math.pi * torch.arange(n, dtype=torch.float64) / n)[:, None]
        eigenvalue = (1 + math.cos(2 * math.pi / n)) / 2
        later = torch.linalg.matrix_power(walk, steps) @ mode
        # With a constant coordinate large enough to fix |X|, the ratio follows the residual.
        offset = torch.full((n, 1), 1e6, dtype=torch.float64)
        before, after = (value(residual_ratio, torch.cat([x, offset], 1)) for x in (mode, later))
        assert after / before == pytest.approx(eigenvalue**steps, rel=1e-8)
        assert eigenvalue**steps == pytest.approx(0.67838898, abs=1e-8)

    def test_isotropic_tokens_read_the_declared_null(self):
        n, d = 197, 192
        tokens = gaussian(9, 8, n, d)
        assert token_cosine(tokens).mean().item() == pytest.approx(0, abs=4 * math.sqrt(2 / (n * (n - 1) * d) / 8))
        assert residual_ratio(tokens).mean().item() == pytest.approx(math.sqrt(1 - 1 / n), abs=1e-3)
        assert erank_unit(tokens).mean().item() == pytest.approx(d * math.exp(-d / (2 * n)), rel=0.01)


class TestIdentities:
    @thorough
    @given(sizes)
    def test_on_unit_tokens_residual_and_cosine_are_one_measurement(self, size):
        n, d, seed = size
        unit = torch.nn.functional.normalize(gaussian(seed, n, d) + 0.5, dim=-1)
        assert value(residual_ratio, unit) ** 2 == pytest.approx(
            (1 - value(token_cosine, unit)) * (n - 1) / n, abs=1e-12
        )

    @thorough
    @given(sizes)
    def test_cosine_is_the_mean_over_all_pairs(self, size):
        n, d, seed = size
        tokens = gaussian(seed, n, d).numpy() + 0.5
        pairs = [
            tokens[i] @ tokens[j] / math.sqrt((tokens[i] @ tokens[i]) * (tokens[j] @ tokens[j]))
            for i in range(n)
            for j in range(n)
            if i != j
        ]
        assert value(token_cosine, torch.from_numpy(tokens)) == pytest.approx(np.mean(pairs), abs=1e-12)

    @thorough
    @given(sizes)
    def test_the_complete_graph_energy_is_n_times_the_squared_residual(self, size):
        n, d, seed = size
        tokens = gaussian(seed, n, d).numpy() + 0.5
        energy = sum(np.sum((a - b) ** 2) for a in tokens for b in tokens) / 2
        squared = energy / n / np.sum(tokens**2)
        assert value(residual_ratio, torch.from_numpy(tokens)) ** 2 == pytest.approx(squared, abs=1e-12)

    @thorough
    @given(sizes)
    def test_effective_rank_is_that_of_singular_values(self, size):
        n, d, seed = size
        tokens = gaussian(seed, n, d).numpy() + 0.5
        unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
        shares = np.linalg.svd(unit, compute_uv=False) ** 2 / n
        entropy = -sum(p * math.log(p) for p in shares if p > 0)
        assert value(erank_unit, torch.from_numpy(tokens)) == pytest.approx(math.exp(entropy), rel=1e-9)

    @thorough
    @given(sizes)
    def test_values_stay_in_their_ranges(self, size):
        n, d, seed = size
        tokens = gaussian(seed, n, d)
        assert -1 / (n - 1) - 1e-12 <= value(token_cosine, tokens) <= 1
        assert 0 <= value(residual_ratio, tokens) <= 1
        assert 1 <= value(erank_unit, tokens) <= min(n, d) * (1 + 1e-12)


class TestInvariance:
    @every_metric
    @thorough
    @given(sizes)
    def test_scale_rotation_and_order_do_not_matter(self, metric, size):
        n, d, seed = size
        tokens = gaussian(seed, n, d) + 0.5
        expected = pytest.approx(value(metric.measure, tokens), rel=1e-9, abs=1e-12)
        shuffled = tokens[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
        assert value(metric.measure, -3.7 * tokens) == expected
        assert value(metric.measure, tokens @ rotation(seed + 1, d)) == expected
        assert value(metric.measure, shuffled) == expected

    @every_metric
    @pytest.mark.parametrize("garbage", [1e6, float("inf"), float("nan")])
    def test_masked_tokens_do_not_matter_whatever_they_hold(self, metric, garbage):
        tokens = gaussian(10, 7, 5) + 0.5
        padded = torch.cat([tokens, torch.full((4, 5), garbage, dtype=torch.float64)])
        mask = torch.arange(11) < 7
        assert value(metric.measure, padded, mask) == pytest.approx(value(metric.measure, tokens), **EXACT)

    @every_metric
    def test_inputs_do_not_influence_each_other(self, metric):
        tokens = gaussian(11, 5, 7, 3)
        one_by_one = torch.cat([metric.measure(row[None], None) for row in tokens])
        assert torch.allclose(metric.measure(tokens, None), one_by_one, rtol=1e-12, atol=1e-12)
        assert one_by_one.dtype == torch.float64

    def test_lengths_do_not_matter_where_directions_are_measured(self):
        tokens, lengths = gaussian(12, 7, 5), gaussian(13, 7, 1).exp()
        for measure in (token_cosine, erank_unit):
            assert value(measure, lengths * tokens) == pytest.approx(value(measure, tokens), **EXACT)
        outlier = torch.ones(7, 1, dtype=torch.float64)
        outlier[3] = 1e8
        assert value(erank_unit, outlier * tokens) == pytest.approx(value(erank_unit, tokens), **EXACT)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_reads_as_its_exact_values_would(self, dtype):
        tokens = (100 * gaussian(14, 7, 997)).to(dtype)
        for metric in METRICS.values():
            assert value(metric.measure, tokens) == value(metric.measure, tokens.double())


class TestEdges:
    @every_metric
    def test_fewer_than_two_tokens_are_undefined(self, metric):
        tokens = gaussian(15, 3, 7, 5)
        mask = torch.zeros(3, 7, dtype=torch.bool)
        mask[1, 2] = True
        mask[2] = True
        first, second, third = metric.measure(tokens, mask).tolist()
        assert math.isnan(first)
        assert math.isnan(second)
        assert third == pytest.approx(value(metric.measure, tokens[2]), **EXACT)
        assert math.isnan(value(metric.measure, tokens[0, :1]))

    @every_metric
    def test_an_input_of_zeros_is_undefined_and_leaves_the_others_alone(self, metric):
        tokens = gaussian(16, 2, 7, 5)
        tokens[0] = 0
        undefined, defined = metric.measure(tokens, None).tolist()
        assert math.isnan(undefined)
        assert defined == pytest.approx(value(metric.measure, tokens[1]), **EXACT)

    def test_tokens_of_length_zero_have_no_direction_but_count_in_the_residual(self):
        tokens = gaussian(17, 7, 5)
        padded = torch.cat([tokens, torch.zeros(2, 5, dtype=torch.float64)])
        for measure in (token_cosine, erank_unit):
            assert value(measure, padded) == pytest.approx(value(measure, tokens), **EXACT)
        # Two tokens, (2, 0) and zero: mean (1, 0), residual sqrt(2), size 2.
        assert value(residual_ratio, torch.tensor([[2.0, 0.0], [0.0, 0.0]])) == pytest.approx(math.sqrt(0.5), **EXACT)

    @every_metric
    @pytest.mark.parametrize("broken", [float("nan"), float("inf")])
    def test_a_value_that_is_not_finite_makes_its_input_undefined_alone(self, metric, broken):
        tokens = gaussian(18, 2, 7, 5)
        tokens[0, 3, 1] = broken
        undefined, defined = metric.measure(tokens, None).tolist()
        assert math.isnan(undefined)
        assert defined == pytest.approx(value(metric.measure, tokens[1]), **EXACT)

    def test_tiny_tokens_keep_their_direction(self):
        tokens = (1e-30 * gaussian(19, 7, 5)).float()
        assert unit_tokens(tokens[None]).kept.tolist() == [7]
        assert value(token_cosine, tokens) == pytest.approx(value(token_cosine, tokens.double() * 1e30), abs=1e-6)
