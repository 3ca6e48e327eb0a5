"""Attention in linear time where the answer is known: flat features, exact ranks, many random features."""

import math

import pytest
import torch
from explicit.case import BATCH, HEAD_DIM, HEADS, TOKENS, Case, Inputs, visible
from explicit.linear_time import CASES
from explicit.softmax_family import softmax
from torch import Tensor, nn

from attnbench.models.attention import QKV, Context
from attnbench.models.initial_value import Generators, draw_initial_values
from attnbench.models.linear_attention import linear_attention
from attnbench.models.variants.cosformer import CosformerAttention
from attnbench.models.variants.focused_linear import FocusedLinearAttention
from attnbench.models.variants.linear import LinearAttention
from attnbench.models.variants.nystromformer import NystromAttention, pseudo_inverse, segment_means
from attnbench.models.variants.performer import PerformerAttention, orthogonal_rows
from attnbench.models.vit import VisionTransformerShape, build

PLAIN = Case("softmax", softmax)
SITE = PLAIN.site()
GIVEN = PLAIN.inputs()


def close(a: Tensor, b: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def run(core: nn.Module, given: Inputs = GIVEN) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def exact(given: Inputs, causal: bool = False) -> Tensor:
    return softmax(given, visible(given, causal), nn.Identity())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Sums


@pytest.mark.parametrize("tokens", [1, 2, 7, 12, 13])
@pytest.mark.parametrize("chunk", [1, 3, 4, 64])
def test_prefix_sums_in_chunks_equal_a_triangular_matrix(tokens: int, chunk: int) -> None:
    q, k, v = (torch.rand(2, 3, tokens, width, generator=generator()).double() for width in (5, 5, 2))
    mask = torch.rand(2, tokens, generator=generator(1)) > 0.3
    mask[:, 0] = True
    weights = (q @ k.mT).tril() * mask[:, None, None, :]
    expected = weights @ v / (0.5 + weights.sum(-1, keepdim=True))
    close(linear_attention(q, k, v, causal=True, mask=mask, eps=0.5, chunk=chunk), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_without_weights_reads_nothing_and_passes_a_finite_gradient(causal: bool) -> None:
    q, k, v = (torch.full((1, 1, 3, 2), x, requires_grad=True) for x in (0.0, 1.0, 1e3))
    y = linear_attention(q, k, v, causal=causal, mask=None)
    assert not y.any()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), (q, k, v)))


def test_sums_over_many_narrow_numbers_are_taken_in_float32() -> None:
    """In bfloat16 a sum of ones stops growing at 256."""
    one = torch.ones(1, 1, 1000, 1, dtype=torch.bfloat16)
    v = torch.where(torch.arange(1000) < 500, 1.0, 3.0).to(torch.bfloat16)[None, None, :, None]
    for causal in (False, True):
        assert linear_attention(one, one, v, causal=causal, mask=None)[0, 0, -1].item() == 2


# Elu + 1


def test_flat_features_average_the_values_up_to_eps() -> None:
    """phi(0) = 1, so every weight is the width of a head."""
    given = GIVEN._replace(q=torch.zeros_like(GIVEN.q), k=torch.zeros_like(GIVEN.k))
    total = HEAD_DIM * TOKENS
    expected = given.v.mean(-2, keepdim=True) * total / (total + 0.5)
    close(run(LinearAttention(SITE, 0.5), given), expected.expand_as(given.v))


def test_one_coordinate_worked_by_hand() -> None:
    """phi(1) = 2; phi(0) = 1 and phi(-log 2) = 1/2, so the weights are 2 and 1."""
    site = Case("linear", softmax, heads=1, tokens=2, head_dim=1).site()
    q, k, v = (torch.tensor(x, dtype=torch.float64).view(1, 1, 2, 1) for x in ([1, 1], [0, -math.log(2)], [5, 11]))
    y = LinearAttention(site, 0.0)(q, k, v, GIVEN.ctx._replace(mask=None))
    close(y.flatten(), torch.tensor([7.0, 7.0]).double())


def test_small_features_keep_their_digits_in_float32() -> None:
    """exp(-20) - 1 + 1 is 0 in float32."""
    far = torch.full((1, HEADS, TOKENS, HEAD_DIM), -20.0)
    y = LinearAttention(SITE, 0.0)(far, far, GIVEN.v[:1].float(), GIVEN.ctx)
    close(y, GIVEN.v[:1].float().mean(-2, keepdim=True).expand_as(y), 1e-6)


# cosFormer


def test_flat_features_leave_the_cosine_of_the_distance() -> None:
    flat = torch.ones_like(GIVEN.q)
    eye = torch.eye(TOKENS).double().expand(BATCH, HEADS, -1, -1)
    matrix = run(CosformerAttention(SITE), GIVEN._replace(q=flat, k=flat, v=eye))
    place = torch.arange(TOKENS)
    cosine = (math.pi / (2 * TOKENS) * (place[:, None] - place).double()).cos()
    close(matrix, (cosine / cosine.sum(-1, keepdim=True)).expand_as(matrix))


def test_negative_queries_read_nothing() -> None:
    assert not run(CosformerAttention(SITE), GIVEN._replace(q=-GIVEN.q.abs())).any()


# Performer


def drawn(features: int, seed: int = 0, eps: float = 0.0, causal: bool = False) -> PerformerAttention:
    core = PerformerAttention(PLAIN.site(causal), features, "fixed", eps)
    draw_initial_values(core, seed)
    return core.double()


def relative_spread(given: Inputs, features: int) -> float:
    """Standard deviation over mean of the worst estimated weight: sqrt((exp(|q + k|^2) - 1) / m), q and k / d^(1/4).

    E exp(2 w (q + k)') = exp(2 |q + k|^2) for a normal w; orthogonal rows have a smaller variance (theorem 2 there).
    """
    sums = (given.q[:, :, :, None] + given.k[:, :, None]) / HEAD_DIM**0.25
    return float(((sums.square().sum(-1).exp() - 1) / features).max().sqrt())


@pytest.mark.parametrize("causal", [False, True])
def test_with_many_features_it_is_softmax_within_five_standard_deviations(causal: bool) -> None:
    given, features = PLAIN.inputs(size=0.5), 200_000
    five = 5 * relative_spread(given, features)
    assert five < 0.4
    bound = 2 * five / (1 - five) * float(given.v.abs().max())
    error = (run(drawn(features, causal=causal), given) - exact(given, causal)).abs().max()
    assert error < bound
    assert error < 0.05
    assert (run(drawn(8, causal=causal), given) - exact(given, causal)).abs().max() > error


def test_a_weight_is_estimated_without_bias() -> None:
    """The mean over draws lies within five standard errors of exp(q k' / sqrt(d))."""
    q, k = torch.tensor([0.6, -0.3, 0.2]).double(), torch.tensor([0.1, 0.5, -0.4]).double()
    draws, features = 4000, 3
    rows = orthogonal_rows(torch.randn(draws, 2, 3, 3, generator=generator()).double(), features)
    estimates = (rows @ (q + k) - (q @ q + k @ k) / 2).exp().mean(-1)
    wanted = float((q @ k).exp())
    error = wanted * math.sqrt((math.exp(float((q + k) @ (q + k))) - 1) / (features * draws))
    assert abs(float(estimates.mean()) - wanted) < 5 * error


def test_rows_are_orthogonal_within_blocks_and_as_long_as_normal_vectors() -> None:
    normal = torch.randn(2, 2, 10, 5, generator=generator()).double()
    rows = orthogonal_rows(normal, 8)
    assert rows.shape == (2, 8, 5)
    products = rows @ rows.mT
    close(products[:, :5, :5], torch.diag_embed(normal[:, 1, :5].square().sum(-1)))
    close(products[:, 5:, 5:], torch.diag_embed(normal[:, 1, 5:8].square().sum(-1)))
    assert products[:, :5, 5:].abs().min() > 1e-6


def test_the_first_direction_of_a_block_is_the_first_column_of_its_normal_numbers() -> None:
    """So it has the law of a normal vector's direction; QR alone would turn some of them round."""
    normal = torch.randn(20, 2, 5, 5, generator=generator()).double()
    first = orthogonal_rows(normal, 1)[:, 0]
    column = normal[:, 0, :, 0]
    close(first / first.norm(dim=-1, keepdim=True), column / column.norm(dim=-1, keepdim=True))


def test_fixed_features_come_from_the_seed_and_the_name_alone() -> None:
    cores = [PerformerAttention(SITE) for _ in range(3)]
    for core, seed in zip(cores, (4, 4, 5), strict=True):
        torch.rand(3)
        core.draw(Generators(seed, "a.core"))
    first, again, other = (core.projection for core in cores)
    assert first.shape == (int(HEAD_DIM * math.log(HEAD_DIM)), HEAD_DIM)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not list(cores[0].parameters())


def test_the_last_token_sees_the_same_with_and_without_a_causal_mask() -> None:
    close(run(drawn(40))[:, :, -1], run(drawn(40, causal=True))[:, :, -1])


def test_a_small_eps_approaches_the_exact_form_and_a_large_one_the_mean() -> None:
    close(run(drawn(40, eps=1e-14)), run(drawn(40)), 1e-8)
    close(run(drawn(40, eps=1e9)), GIVEN.v.mean(-2, keepdim=True).expand_as(GIVEN.v), 1e-7)


def test_the_exact_form_survives_in_float32_where_plain_exponentials_underflow() -> None:
    given = PLAIN.inputs(size=20)
    core = drawn(40)
    size = given.k.square().sum(-1) / 2 / HEAD_DIM**0.5
    assert (size > 110).any()
    narrow = core.float()(*(x.float() for x in (given.q, given.k, given.v)), given.ctx)
    assert narrow.isfinite().all()
    torch.testing.assert_close(narrow.double(), run(core.double(), given), rtol=1e-3, atol=2e-2)


def test_an_added_constant_looks_at_later_keys_and_is_refused() -> None:
    with pytest.raises(ValueError, match=r"performer with eps 0\.1 under a causal mask.*set eps to 0"):
        PerformerAttention(PLAIN.site(causal=True), eps=0.1)


# Focused linear attention


def focused(**settings: str | float) -> tuple[FocusedLinearAttention, Inputs]:
    """Without its convolution, at its initial values."""
    case = next(c for c in CASES if c.name == "focused_linear")
    core = FocusedLinearAttention(case.site(), **settings).double()  # type: ignore[arg-type]
    nn.init.zeros_(core.conv.weight)
    assert core.conv.bias is not None
    nn.init.zeros_(core.conv.bias)
    return core, case.inputs()


def test_the_first_power_is_linear_attention_with_rectified_features() -> None:
    """With positive queries and keys, so that the 1e-6 on every coordinate is small beside them."""
    core, given = focused(power=1.0)
    given = given._replace(q=given.q.abs(), k=given.k.abs())
    weights = given.q @ given.k.mT
    close(run(core, given), weights / weights.sum(-1, keepdim=True) @ given.v, 1e-4)


@pytest.mark.parametrize("power", [1.0, 3.0, 8.0])
def test_focusing_keeps_lengths_and_turns_features_to_their_largest_coordinate(power: float) -> None:
    core, given = focused(power=power, length="head")
    plain, _ = focused(power=1.0, length="head")
    before, after = (c._features(given.q.abs()) for c in (plain, core))
    close(after.norm(dim=-1), before.norm(dim=-1))
    largest = [x.amax(-1) for x in (before, after)]
    assert (largest[1] > largest[0] if power > 1 else largest[1] == largest[0]).all()


def test_a_convolution_with_one_weight_at_its_centre_adds_the_values_of_the_patches() -> None:
    core, given = focused()
    bare = run(core, given)
    with torch.no_grad():
        core.conv.weight[:, :, 2, 2] = 1
    front = core.site.prefix_tokens
    difference = run(core, given) - bare
    close(difference[:, :, front:], given.v[:, :, front:])
    assert not difference[:, :, :front].any()


def test_a_convolution_with_one_weight_above_its_centre_adds_the_values_of_the_row_above() -> None:
    core, given = focused()
    bare = run(core, given)
    with torch.no_grad():
        core.conv.weight[:, :, 1, 2] = 1
    front, (_, columns) = core.site.prefix_tokens, core.grid
    difference = (run(core, given) - bare)[:, :, front:]
    assert not difference[:, :, :columns].any()
    close(difference[:, :, columns:], given.v[:, :, front:-columns])


def test_tokens_without_a_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"focused_linear on 7 tokens with the grid None.*use"):
        FocusedLinearAttention(SITE)


# Nyströmformer


def kernel(size: int, sharpness: float) -> Tensor:
    return (sharpness * torch.randn(2, 3, size, size, generator=generator()).double()).softmax(-1)


def test_many_iterations_reach_the_inverse_that_lapack_finds() -> None:
    x = kernel(5, 2.0)
    close(pseudo_inverse(x, 40, False), torch.linalg.pinv(x), 1e-7)


def test_many_iterations_reach_the_pseudo_inverse_of_a_singular_map() -> None:
    x = kernel(5, 1.0)
    x[..., 3, :] = x[..., 1, :]
    found = pseudo_inverse(x, 15, False)
    close(found, torch.linalg.pinv(x, rtol=1e-10), 1e-6)


def test_the_inverse_of_a_permutation_needs_no_iteration() -> None:
    x = torch.eye(5).double()[[2, 0, 1, 4, 3]].expand(2, 3, 5, 5)
    for iterations in (0, 1, 6):
        close(pseudo_inverse(x, iterations, False), x.mT)


def test_only_a_common_start_lets_one_matrix_slow_the_others() -> None:
    x = kernel(5, 2.0)
    for one_start in (False, True):
        alone = pseudo_inverse(x[:1, :1], 1, one_start)
        together = pseudo_inverse(x, 1, one_start)[:1, :1]
        assert bool((alone - together).abs().max() < 1e-12) != one_start


def test_as_many_landmarks_as_tokens_are_softmax() -> None:
    close(run(NystromAttention(SITE, TOKENS, kernel=0)), exact(GIVEN))


def test_landmarks_are_exact_where_segments_are_constant() -> None:
    case = Case("nystromformer", softmax, tokens=12)
    given = case.inputs(size=2)
    constant = given._replace(
        q=given.q[:, :, ::3].repeat_interleave(3, 2), k=given.k[:, :, ::3].repeat_interleave(3, 2)
    )
    core = NystromAttention(case.site(), 4, iterations=60, kernel=0)
    close(run(core, constant), exact(constant), 1e-6)
    assert (run(core, given) - exact(given)).abs().max() > 0.01


def test_segments_that_cannot_be_equal_end_with_the_longer_ones() -> None:
    x = torch.tensor([1.0, 3, 5, 6, 7, 10, 20]).view(1, 1, 7, 1)
    assert segment_means(x, 3).flatten().tolist() == [2, 5.5, pytest.approx(37 / 3)]
    assert segment_means(x, 7).flatten().tolist() == x.flatten().tolist()


def test_a_convolution_with_one_weight_shifts_the_values_along_the_tokens() -> None:
    core = NystromAttention(SITE, 3, kernel=5).double()
    assert core.conv is not None
    nn.init.zeros_(core.conv.weight)
    bare = run(core)
    with torch.no_grad():
        core.conv.weight[:, 0, 0, 0] = torch.tensor([1.0, 10.0, 100.0])
    difference = run(core) - bare
    assert not difference[:, :, :2].any()
    close(difference[:, :, 2:], GIVEN.v[:, :, :-2] * torch.tensor([1.0, 10.0, 100.0])[:, None, None], 1e-9)


@pytest.mark.parametrize("landmarks", [0, TOKENS + 1])
def test_landmarks_that_the_tokens_cannot_fill_are_refused(landmarks: int) -> None:
    with pytest.raises(ValueError, match=rf"nystromformer with {landmarks} landmarks on 7 tokens: allowed.*set"):
        NystromAttention(SITE, landmarks)


# Extremes and networks

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("case", "causal"),
    [pytest.param(c, causal, id=f"{c.id}{'-causal' * causal}") for c in CASES for causal in {False, c.causal}],
)
def test_outputs_and_gradients_stay_finite_at_extreme_inputs(case: Case, causal: bool, dtype: torch.dtype) -> None:
    core, given = case.ready(causal).to(dtype), case.inputs(mask=True)
    extremes = {
        f"{size}": given.changed(lambda t, size=size: t if t.dtype == torch.bool else size * t)
        for size in (0.0, 1e-8, 1e3)
    }
    extremes["equal"] = given.changed(lambda t: t[..., :1, :].expand_as(t))
    for name, extreme in extremes.items():
        leaves = [x.to(dtype).requires_grad_() for x in (extreme.q, extreme.k, extreme.v)]
        nothing = QKV(*(torch.zeros_like(x) for x in leaves))
        noise = {n: t.to(dtype) for n, t in given.noise.items()}
        y = core(*leaves, Context(given.x.to(dtype), given.residual.to(dtype), given.mask, nothing, nothing, noise))
        assert y.dtype == dtype
        assert y.isfinite().all(), name
        found = torch.autograd.grad(y.square().sum(), leaves)
        assert all(g.isfinite().all() for g in found), name


@every_case
def test_a_network_learns_in_every_parameter_and_runs_under_autocast(case: Case) -> None:
    shape = VisionTransformerShape(image=16, patch=2, dim=12, depth=2, heads=3)
    model = build(case.variant.core, case.all_settings, shape, 0)
    pixels = torch.rand(5, 1, 16, 16, generator=generator())
    noise = {n.name: torch.randn(5, *n.shape, generator=generator()) for n in model.noise()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pixels, noise).isfinite().all()
    model(pixels, noise).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith("attention.k.bias"), name
