"""Attention that weighs tokens against contamination, where the answer is known in closed form."""

import math

import numpy as np
import pytest
import torch
from explicit.case import Case, Inputs, visible
from explicit.robust import CASES, unit
from explicit.robust import tropical as explicit_tropical
from explicit.softmax_family import softmax
from scipy.optimize import minimize
from torch import Tensor, nn

from attnbench.models.attention import QKV, Context
from attnbench.models.direction import direction
from attnbench.models.initial_value import Generators, generator_for
from attnbench.models.kernel_density import gaussian_kernel, squared_distance, weighted_estimate
from attnbench.models.site import Site
from attnbench.models.variants.mom import MedianOfMeansAttention
from attnbench.models.variants.p_laplacian import PLaplacianAttention
from attnbench.models.variants.protransformer import ProTransformerAttention
from attnbench.models.variants.rkde import RobustKernelDensityAttention
from attnbench.models.variants.rpc import RobustPrincipalComponentAttention
from attnbench.models.variants.spkde import ScaledProjectedAttention, projected
from attnbench.models.variants.tropical import TropicalAttention
from attnbench.models.vit import VisionTransformerShape, build

PLAIN = Case("softmax", softmax)
GIVEN = PLAIN.inputs()
SITE = PLAIN.site()


def close(a: Tensor, b: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def run(core: nn.Module, given: Inputs = GIVEN) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def kernel_density_attention(given: Inputs, causal: bool = False) -> Tensor:
    """The plain estimate, of which the robust ones are departures: softmax of 2 q k' / sqrt(d) with unit keys."""
    return softmax(given._replace(q=2 * given.q, k=unit(given.k)), visible(given, causal), nn.Identity())


def one_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Site, Inputs]:
    """Tensors `[token, dim]` as one head of one sample."""
    q, k, v = (x.double()[None, None] for x in (q, k, v))
    tokens, dim = v.shape[-2:]
    site = Site(0, 1, dim, 1, dim, tokens, 0, None, False, dim**-0.5)
    return site, Inputs(q, k, v, v[:, 0], v[:, 0], v, v)


# Kernels


def test_squared_distances_survive_far_from_the_origin() -> None:
    x = torch.tensor([[4096.0, 4096.0], [4096.0, 4096.5], [4097.0, 4096.0]])
    assert squared_distance(x, x).tolist() == [[0, 0.25, 1], [0.25, 0, 1.25], [1, 1.25, 0]]


def test_distances_of_narrow_numbers_are_taken_in_float32() -> None:
    x = torch.tensor([[1.0], [1.0078125]], dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance = squared_distance(x, x)
    assert distance.dtype == torch.float32
    assert distance[0, 1] == 0.0078125**2


def test_a_kernel_is_one_on_its_diagonal_and_halves_where_it_should() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 3.0]]).double()
    close(gaussian_kernel(x, math.log(2) / 9), torch.tensor([[1, 0.5], [0.5, 1]]).double())


def test_a_key_of_length_zero_stays_zero_with_a_finite_gradient() -> None:
    k = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]], requires_grad=True)
    direction(k).sum().backward()
    assert torch.equal(direction(k), torch.tensor([[[[0.6, 0.8], [0.0, 0.0]]]]))
    assert k.grad is not None
    assert k.grad.isfinite().all()


def test_weights_of_an_estimate_may_be_zero() -> None:
    ones = torch.ones(*GIVEN.v.shape[:3], dtype=torch.float64)
    first = ones.clone()
    first[..., 1:] = 0
    y = weighted_estimate(GIVEN.q, GIVEN.k, GIVEN.v, first, first, scale=1.0, mask=None)
    close(y, GIVEN.v[:, :, :1].expand_as(y))
    close(
        weighted_estimate(GIVEN.q, GIVEN.k, GIVEN.v, ones, 0 * ones, scale=SITE.scale, mask=None),
        softmax(GIVEN, visible(GIVEN, False), nn.Identity()),
    )


# Robust kernel density estimate


@pytest.mark.parametrize("causal", [False, True])
def test_hampel_as_released_is_the_plain_estimate(causal: bool) -> None:
    core = RobustKernelDensityAttention(PLAIN.site(causal), "hampel", "released", threshold=1 / 3, iterations=2)
    close(run(core), kernel_density_attention(GIVEN, causal))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("loss", ["huber", "hampel"])
def test_a_threshold_that_no_distance_reaches_gives_the_plain_estimate(loss: str, causal: bool) -> None:
    core = RobustKernelDensityAttention(PLAIN.site(causal), loss, threshold=math.sqrt(2))  # type: ignore[arg-type]
    close(run(core), kernel_density_attention(GIVEN, causal))


@pytest.mark.parametrize("tokens", [3, 10])
def test_one_outlier_among_equal_tokens_weighs_by_its_distance_in_feature_space(tokens: int) -> None:
    """With n - 1 equal points and one whose kernel to them is c, the mean lies (n - 1) / n of sqrt(2 - 2 c) from it."""
    key = torch.eye(4)[:1].repeat(tokens, 1)
    value = torch.zeros(tokens, 4)
    value[-1, 2] = 3
    site, given = one_head(torch.zeros(tokens, 4), key, value)
    a = 0.9 / tokens * math.sqrt(2)
    y = run(RobustKernelDensityAttention(site, threshold=a), given)
    crowd, outlier = (math.sqrt(2 - 2 * math.exp(-9 / 2)) * part / tokens for part in (1, tokens - 1))
    weight = min(1, a / outlier) / (min(1, a / outlier) + (tokens - 1) * min(1, a / crowd))
    assert weight < 1 / tokens
    close(y, (weight * given.v[:, :, -1:]).expand_as(y))


def test_as_released_an_outlier_weighs_more_than_the_crowd() -> None:
    tokens = 5
    value = torch.zeros(tokens, 4)
    value[-1, 2] = 30
    site, given = one_head(torch.zeros(tokens, 4), torch.eye(4)[:1].repeat(tokens, 1), value)
    y = run(RobustKernelDensityAttention(site, form="released"), given)
    spread = 1 + (4 * 4 + 1) / 25  # the outlier's kernel to the others underflows to 0
    weight = (spread + 1 / 5) ** -0.5 / ((spread + 1 / 5) ** -0.5 + 4 * (spread + 4 / 5) ** -0.5)
    assert weight > 1 / tokens
    close(y, (weight * given.v[:, :, -1:]).expand_as(y))


@pytest.mark.parametrize("over", [{"threshold": 0.0}, {"iterations": 0}])
def test_rkde_refuses_settings_outside_their_range(over: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rkde with threshold.*allowed"):
        RobustKernelDensityAttention(SITE, **over)  # type: ignore[arg-type]


# Median of means


def test_one_block_or_a_subset_of_all_tokens_gives_the_plain_estimate() -> None:
    close(run(MedianOfMeansAttention(SITE, blocks=1)), kernel_density_attention(GIVEN))
    released = MedianOfMeansAttention(SITE, "released", blocks=3, kept=1.0)
    noise = {"blocks": torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(0))}
    close(run(released, GIVEN._replace(noise=noise)), kernel_density_attention(GIVEN))


def test_blocks_with_the_same_tokens_give_the_plain_estimate_of_one() -> None:
    repeated = GIVEN.changed(lambda t: t.repeat_interleave(3, -2))
    case = Case("mom", softmax, tokens=21)
    close(run(MedianOfMeansAttention(case.site(), blocks=3), repeated)[:, :, ::3], kernel_density_attention(GIVEN))


def test_a_block_with_a_key_at_the_query_is_not_the_median_of_three() -> None:
    """Block 0 holds an outlier that every query would read, block 1 keys across from the query, block 2 keys beside."""
    beside, across, at = torch.tensor([[0.0, 1], [-1, 0], [1, 0]])
    key = torch.stack([at, across, beside, across, across, beside])
    value = torch.arange(6.0)[:, None].repeat(1, 2)
    site, given = one_head(5 * at.repeat(6, 1), key, value)
    close(run(MedianOfMeansAttention(site, blocks=3), given), torch.full((1, 1, 6, 2), (2 + 5) / 2).double())


def test_random_blocks_deal_out_every_token_once() -> None:
    case = Case("mom", softmax, tokens=12, head_dim=12)
    core = MedianOfMeansAttention(case.site(), "resampled", blocks=4)
    given = case.inputs()
    eye = torch.eye(12).double().expand_as(given.v)
    noise = {"blocks": torch.rand(2, 12, generator=torch.Generator().manual_seed(1))}
    read = run(core, given._replace(v=eye, noise=noise)) > 0
    assert (read.sum(-1) == 3).all()
    for sample in read.flatten(1, 2):
        blocks = sample.unique(dim=0)
        assert 1 < len(blocks) <= 4
        assert (blocks.sum(0) <= 1).all()


def test_fewer_real_tokens_than_blocks_leave_the_median_of_those_there_are() -> None:
    core, mask = MedianOfMeansAttention(SITE, blocks=5), torch.zeros(2, 7, dtype=torch.bool)
    mask[:, 3] = True
    close(run(core, GIVEN._replace(mask=mask)), GIVEN.v[:, :, 3:4].expand_as(GIVEN.v))
    assert not run(core, GIVEN._replace(mask=torch.zeros_like(mask))).any()


@pytest.mark.parametrize("over", [{"blocks": 0}, {"kept": 0.0}, {"kept": 1.1}])
def test_mom_refuses_settings_outside_their_range(over: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"mom with.*allowed"):
        MedianOfMeansAttention(SITE, **over)  # type: ignore[arg-type]


# Scaled and projected estimate


@pytest.mark.parametrize("boost", [1.05, 4.0])
def test_projected_weights_are_the_least_that_scipy_finds(boost: float) -> None:
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = gaussian_kernel(points, 0.5).numpy()
    found = minimize(
        lambda a: a @ gram @ a / 2 - boost * gram.mean(0) @ a,
        np.full(12, 1 / 12),
        jac=lambda a: gram @ a - boost * gram.mean(0),
        bounds=[(0, 1)] * 12,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    weights = projected(torch.from_numpy(gram)[None, None], torch.ones(1, 1, 12).double(), boost, 200)
    close(weights[0, 0], torch.from_numpy(found.x), 1e-5)
    assert (found.x < 1e-9).any() == (boost > 2)


def test_an_estimate_that_is_not_scaled_is_its_own_projection() -> None:
    close(run(ScaledProjectedAttention(SITE, outliers=0.0)), kernel_density_attention(GIVEN))


def test_a_far_outlier_loses_what_the_crowd_of_equal_points_gains() -> None:
    """With n - 1 equal points and one at kernel 0 the problem has one unknown: the outlier's a = 1 / n - (b - 1) c.

    a^2 / 2 + (1 - a)^2 / 2 - b (a / n + (1 - a) (n - 1) / n) is least at a = 1 / 2 - b (n - 2) / (2 n).
    """
    n, boost = 5, 1 / (1 - 0.1)
    gram = torch.eye(n).double()
    gram[:-1, :-1] = 1
    weights = projected(gram[None, None], torch.ones(1, 1, n).double(), boost, 50)[0, 0]
    outlier = 1 / 2 - boost * (n - 2) / (2 * n)
    close(weights[-1], torch.tensor(outlier).double(), 1e-6)
    close(weights[:-1], torch.full((n - 1,), (1 - outlier) / (n - 1)).double(), 1e-6)


@pytest.mark.parametrize("over", [{"outliers": 1.0}, {"outliers": -0.1}, {"steps": 0}])
def test_spkde_refuses_settings_outside_their_range(over: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"spkde with.*allowed"):
        ScaledProjectedAttention(SITE, **over)  # type: ignore[arg-type]


# Robust centres


@pytest.mark.parametrize("causal", [False, True])
def test_without_steps_or_within_hubers_threshold_the_centre_is_the_mean(causal: bool) -> None:
    site, expected = PLAIN.site(causal), softmax(GIVEN, visible(GIVEN, causal), nn.Identity())
    close(run(ProTransformerAttention(site, steps=0)), expected)
    close(run(ProTransformerAttention(site, "huber", threshold=1e3)), expected)


def test_the_l1_centre_of_equally_attended_numbers_is_their_median() -> None:
    """Two values at 0 and one at 10: reweighting settles where z / (z + 0.01) is half of (10 - z) / (10.01 - z)."""
    site, given = one_head(torch.zeros(3, 1), torch.ones(3, 1), torch.tensor([[0.0], [10.0], [0.0]]))
    z = run(ProTransformerAttention(site, "l1", steps=300), given)
    close(2 * z / (z + 0.01), (10 - z) / (10.01 - z))
    assert z.max() < 0.01 < 10 / 3


def test_mcp_keeps_the_mean_where_every_value_lies_beyond_its_threshold() -> None:
    """r > 1 / (1/4 + 1/100) = 3.85 gives every value the same least weight: a far enough outlier goes unnoticed."""
    site, given = one_head(torch.zeros(3, 1), torch.ones(3, 1), torch.tensor([[0.0], [3000.0], [0.0]]))
    close(run(ProTransformerAttention(site, "mcp"), given), torch.full((1, 1, 3, 1), 1000.0).double())


def test_stopped_distances_pass_the_gradient_of_the_reweighted_mean_alone() -> None:
    v = GIVEN.v.clone().requires_grad_()
    given = GIVEN._replace(v=v)
    summed = run(ProTransformerAttention(SITE, "l1"), given).sum()
    (slope,) = torch.autograd.grad(summed, v)
    close(slope.sum(-2), torch.full_like(slope.sum(-2), v.shape[-2]))
    close((slope * v).sum(), summed)


@pytest.mark.parametrize("over", [{"steps": -1}, {"threshold": 0.0}])
def test_protransformer_refuses_settings_outside_their_range(over: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"protransformer with.*allowed"):
        ProTransformerAttention(SITE, **over)  # type: ignore[arg-type]


# Robust principal components


def symmetric(k: Tensor, v: Tensor) -> Tensor:
    return softmax(GIVEN._replace(q=k, k=k, v=v), visible(GIVEN, False), nn.Identity())


def test_a_threshold_of_zero_takes_the_whole_key_for_an_outlier() -> None:
    core = RobustPrincipalComponentAttention(SITE, iterations=1, strength=0.0, layers="all")
    close(run(core), GIVEN.v.mean(-2, keepdim=True).expand_as(GIVEN.v))


def test_a_threshold_that_nothing_reaches_smooths_what_is_left_over() -> None:
    """With no outliers the multiplier is what attention missed: rounds attend with k, y_1 and y_1 + y_2 - k."""
    k, v = GIVEN.k, GIVEN.v
    first = symmetric(k, v)
    second = symmetric(first, v)
    third = symmetric(first + second - k, v)
    for rounds, expected in enumerate((first, second, third), 1):
        core = RobustPrincipalComponentAttention(SITE, iterations=rounds, strength=1e3, layers="all")
        close(run(core), expected)


def test_only_the_first_layer_iterates_unless_all_do() -> None:
    k, v = GIVEN.k, GIVEN.v
    bottom = RobustPrincipalComponentAttention(PLAIN.site(layer=0), 2, 0.5)
    above = RobustPrincipalComponentAttention(PLAIN.site(layer=1), 2, 0.5)
    everywhere = RobustPrincipalComponentAttention(PLAIN.site(layer=1), 2, 0.5, layers="all")
    close(run(bottom), run(everywhere))
    close(run(above), symmetric(k, v))


def test_the_usual_threshold_grows_with_the_keys_and_the_released_one_shrinks() -> None:
    """Keys of 1 and -1 have mu = heads / 4 = 3/4; clipping at the threshold makes them smaller where it is below 1."""
    signs = torch.sign(GIVEN.k)
    for size in (0.5, 1.0, 2.0):
        given, mu = GIVEN._replace(k=size * signs), 3 / 4 / size
        for name, bound in (("released", 0.9 * mu), ("usual", 0.9 / mu)):
            core = RobustPrincipalComponentAttention(SITE, 1, 0.9, "all", name)  # type: ignore[arg-type]
            close(run(core, given), symmetric(min(size, bound) * signs, GIVEN.v))


@pytest.mark.parametrize("over", [{"iterations": 0}, {"strength": -1.0}])
def test_rpc_refuses_settings_outside_their_range(over: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rpc with.*allowed"):
        RobustPrincipalComponentAttention(SITE, **over)  # type: ignore[arg-type]


# p-Laplacian


@pytest.mark.parametrize("causal", [False, True])
def test_p_of_two_is_softmax(causal: bool) -> None:
    expected = softmax(GIVEN, visible(GIVEN, causal), nn.Identity())
    close(run(PLaplacianAttention(PLAIN.site(causal), p=2.0)), expected)


def test_p_of_one_weighs_two_tokens_by_the_softening_over_their_distance() -> None:
    """Values 4 apart and softening 3: factors 1 / 3 to itself and 1 / 5 to the other."""
    site, given = one_head(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([[0.0], [4.0]]))
    close(run(PLaplacianAttention(site, p=1.0, softening=3.0), given)[0, 0, :, 0], torch.tensor([1.5, 2.5]).double())


@pytest.mark.parametrize("over", [{"p": 0.5}, {"softening": 0.0}])
def test_p_laplacian_refuses_settings_outside_their_range(over: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"p_laplacian with.*allowed"):
        PLaplacianAttention(SITE, **over)


# Tropical


def plain_maps(site: Site, distance: str) -> TropicalAttention:
    """Maps that leave each coordinate to itself."""
    core = TropicalAttention(site, distance).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(-1e6 * (1 - torch.eye(len(parameter))))
    return core


@pytest.mark.parametrize("distance", ["symmetric", "asymmetric"])
def test_equal_keys_at_the_query_give_the_largest_positive_part_of_each_coordinate(distance: str) -> None:
    site, given = one_head(torch.ones(7, 5), torch.ones(7, 5), GIVEN.v[0, 0])
    close(run(plain_maps(site, distance), given), given.v.relu().amax(-2, keepdim=True).expand_as(given.v))


@pytest.mark.parametrize(("distance", "apart"), [("symmetric", 2.0), ("asymmetric", 3.0)])
def test_a_value_is_divided_by_the_exponential_of_its_keys_distance(distance: str, apart: float) -> None:
    """log(1 + x) of query and key differ by 0, 1 and 2: max - min is 2, sum - 3 min is 3."""
    logs = torch.tensor([[0.0, 1.0, 2.0]])
    site, given = one_head(torch.expm1(logs.double()), torch.zeros(1, 3), torch.full((1, 3), 9.0))
    close(
        run(plain_maps(site, distance), given), torch.full((1, 1, 1, 3), 10 * math.exp(-apart) - 1, dtype=torch.float64)
    )


@pytest.mark.parametrize("causal", [False, True])
def test_chunks_of_queries_fit_together(causal: bool) -> None:
    case = Case("tropical", explicit_tropical("symmetric").reference, heads=1, tokens=37, head_dim=2)
    core, given = case.core(causal), case.inputs(mask=True)
    close(run(core, given), case.reference(given, visible(given, causal), core))


def test_maps_come_from_the_seed_and_the_name_alone() -> None:
    core = TropicalAttention(SITE)
    with torch.no_grad():
        core.draw(Generators(4, "a.core"))
    close(core.key_map, torch.randn(5, 5, generator=generator_for(4, "a.core.key_map")))


# Extremes and networks

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


def extremes(case: Case) -> dict[str, Inputs]:
    given = case.inputs()
    return {
        "zero": given.changed(torch.zeros_like),
        "equal": given.changed(lambda t: t[..., :1, :].expand_as(t)),
        "large": given.changed(lambda t: 1e3 * t),
        "small": given.changed(lambda t: 1e-8 * t),
    }


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("opened", [False, True])
def test_outputs_and_gradients_stay_finite_at_extreme_inputs(case: Case, opened: bool, dtype: torch.dtype) -> None:
    core = case.ready(**(case.variant.open_settings if opened else {})).to(dtype)
    for name, given in extremes(case).items():
        leaves = [x.to(dtype).requires_grad_() for x in (given.q, given.k, given.v)]
        nothing = QKV(*(torch.zeros_like(x) for x in leaves))
        ctx = Context(given.x.to(dtype), given.residual.to(dtype), None, nothing, nothing, given.noise)
        y = core(*leaves, ctx)
        assert y.dtype == dtype
        assert y.isfinite().all(), name
        found = torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)
        assert all(g.isfinite().all() for g in found if g is not None), name


@every_case
def test_every_parameter_of_a_network_learns(case: Case) -> None:
    shape = VisionTransformerShape(image=8, patch=2, dim=12, depth=2, heads=3)
    model = build(case.variant.core, case.all_settings, shape, 0)
    g = torch.Generator().manual_seed(0)
    noise = {n.name: torch.rand(5, *n.shape, generator=g) for n in model.noise()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = model(torch.rand(5, 1, 8, 8, generator=g), noise)
    assert narrow.isfinite().all()
    model(torch.rand(5, 1, 8, 8, generator=g), noise).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith("attention.k.bias"), name
