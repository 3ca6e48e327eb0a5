"""The vision transformer gives every variant the same start, the same noise and the same places to look."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnbench.attacks.draw import Draw
from attnbench.bench.noise import drawn
from attnbench.models.attention import QKV, Context
from attnbench.models.block import kept
from attnbench.models.demand import carrying, parameter_count, widened
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.noise import Noise
from attnbench.models.site import Site
from attnbench.models.variant import Variant
from attnbench.models.variants.cross_sample_metric import CROSS_SAMPLE_METRIC
from attnbench.models.variants.elliptical import ELLIPTICAL
from attnbench.models.variants.l2 import L2
from attnbench.models.variants.neutreno import NEUTRENO
from attnbench.models.variants.quest import QUEST
from attnbench.models.variants.random_metric import RANDOM_METRIC
from attnbench.models.variants.registers import REGISTERS
from attnbench.models.variants.softmax import SOFTMAX
from attnbench.models.variants.softmax_matched import SOFTMAX_MATCHED
from attnbench.models.variants.static_metric import STATIC_METRIC
from attnbench.models.variants.twicing import TWICING
from attnbench.models.vit import Block, VisionTransformer, VisionTransformerShape, build

SHAPE = VisionTransformerShape(image=6, channels=2, patch=2, dim=15, depth=3, heads=5, classes=7)
BATCH = 11
IDS = [str(i) for i in range(BATCH)]
RESAMPLED = {"draw": "resampled"}
MODELS = [
    *((v, {}) for v in (SOFTMAX, ELLIPTICAL, RANDOM_METRIC, STATIC_METRIC, CROSS_SAMPLE_METRIC, SOFTMAX_MATCHED)),
    *((v, {}) for v in (L2, NEUTRENO, TWICING, QUEST)),
    (ELLIPTICAL, {"statistic": "median", "gradient": "open"}),
    (RANDOM_METRIC, RESAMPLED),
]
MODEL_IDS = ["-".join((variant.name, *settings.values())) for variant, settings in MODELS]
every_model = pytest.mark.parametrize(("variant", "settings"), MODELS, ids=MODEL_IDS)


def built(variant: Variant, settings: Mapping[str, Any], seed: int = 0, **sizes: Any) -> VisionTransformer:
    shape = SHAPE._replace(**sizes)
    measured = {name: torch.full((shape.depth, shape.heads), 0.8) for name in variant.measured}
    return build(variant.core, {**variant.settings, **settings}, shape, seed, measured)


def pixels(seed: int = 0) -> Tensor:
    return torch.rand(BATCH, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def noise(model: VisionTransformer, repeat: int = 0, training: bool = False) -> dict[str, Tensor]:
    return drawn(model.noise(), IDS, Draw(0, "", "test", repeat), training=training)


def tapped(model: VisionTransformer, given: Mapping[str, Tensor] | None = None) -> dict[tuple[str, int], Tensor]:
    seen: dict[tuple[str, int], Tensor] = {}

    def tap(point: str, layer: int, x: Tensor) -> None:
        assert (point, layer) not in seen
        seen[point, layer] = x

    model(pixels(), given, tap)
    return seen


class Probe(nn.Module):
    """A core that mixes uniformly and keeps what it was given."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        self.given, self.ctx = QKV(q, k, v), ctx
        return v.mean(2, keepdim=True).expand_as(v)


class Noisy(Probe):
    """A core that adds one number a sample, at inference too."""

    noise = (Noise("offset", (1,), "normal", "always"), Noise("lesson", (1,), "uniform", "train"))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        self.names = set(ctx.noise)
        return v + ctx.noise["offset"][:, :, None, None]


# Initial values


@every_model
def test_every_variant_starts_where_softmax_starts(variant: Variant, settings: Mapping[str, Any]) -> None:
    torch.manual_seed(1)
    reference = built(SOFTMAX, {}).state_dict()
    torch.manual_seed(2)
    torch.rand(5)
    values = built(variant, settings).state_dict()
    assert set(reference) <= set(values)
    assert all(torch.equal(values[name], tensor) for name, tensor in reference.items())
    assert [name for name in values if name not in reference and ".core." not in name] == []


def test_initial_values_do_not_depend_on_what_else_is_built() -> None:
    shallow, deep = built(SOFTMAX, {}, depth=2).state_dict(), built(SOFTMAX, {}, depth=3).state_dict()
    assert all(torch.equal(deep[name], tensor) for name, tensor in shallow.items())


def test_initial_values_follow_the_seed_and_differ_between_layers_and_projections() -> None:
    first, other = built(SOFTMAX, {}, seed=0).state_dict(), built(SOFTMAX, {}, seed=1).state_dict()
    drawn_names = [name for name, tensor in first.items() if tensor.std() > 0]
    assert all(not torch.equal(first[name], other[name]) for name in drawn_names)
    projections = [first[f"blocks.{layer}.attention.{p}.weight"] for layer in range(3) for p in ("q", "k", "v", "out")]
    assert len({tuple(p.flatten().tolist()) for p in projections}) == len(projections)


def test_weights_are_xavier_uniform_and_biases_zero() -> None:
    for name, module in built(SOFTMAX, {}, dim=60).named_modules():
        if isinstance(module, nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            assert not module.bias.any()


def test_a_seed_means_the_same_in_double_precision() -> None:
    model = built(SOFTMAX, {})
    doubled = VisionTransformer(SHAPE, SOFTMAX.core).double()
    draw_initial_values(doubled, 0)
    assert all(torch.equal(tensor.double(), doubled.state_dict()[n]) for n, tensor in model.state_dict().items())


def test_a_fixed_random_metric_is_part_of_the_state_and_differs_by_layer() -> None:
    state = built(RANDOM_METRIC, {}).state_dict()
    frozen = [state[f"blocks.{layer}.attention.core.frozen"] for layer in range(3)]
    assert torch.equal(frozen[0], torch.ones(5, 3))
    assert not torch.equal(frozen[1], frozen[2])
    assert all(torch.equal(f.amax(-1), torch.ones(5)) for f in frozen)


# What it computes


def test_patches_are_cut_row_by_row_and_normalised() -> None:
    shape = VisionTransformerShape(image=4, channels=1, patch=2, dim=4, depth=1, heads=1, mean=0.25, std=0.5)
    model = build(SOFTMAX.core, {}, shape, 0)
    with torch.no_grad():
        model.embed.weight.copy_(torch.eye(4))
        model.position.weight.zero_()
    image = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]).float()
    expected = (torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]) - 0.25) / 0.5
    assert torch.equal(model.tokens(image[None, None])[0], expected)


@every_model
def test_without_positions_the_order_of_the_patches_does_not_matter(
    variant: Variant, settings: Mapping[str, Any]
) -> None:
    model = built(variant, settings).double()
    with torch.no_grad():
        model.position.weight.zero_()
    x = pixels().double()
    swapped = torch.cat((x[:, :, 4:], x[:, :, 2:4], x[:, :, :2]), 2)
    torch.testing.assert_close(model(x, noise(model)), model(swapped, noise(model)), rtol=0, atol=1e-10)


@every_model
def test_single_precision_agrees_with_double(variant: Variant, settings: Mapping[str, Any]) -> None:
    model = built(variant, settings)
    single = model(pixels(), noise(model))
    double = model.double()(pixels().double(), noise(model))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "settings"), [(SOFTMAX, {}), (ELLIPTICAL, {"gradient": "open"})], ids=["softmax", "elliptical-open"]
)
def test_the_gradient_of_the_whole_network_agrees_with_finite_differences(
    variant: Variant, settings: Mapping[str, Any]
) -> None:
    model = built(variant, settings).double()
    assert torch.autograd.gradcheck(model, pixels().double()[:2].requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(("gradient", "whole"), [("open", True), ("stop", False)])
def test_a_stopped_metric_hides_part_of_the_gradient_of_the_pixels(gradient: str, whole: bool) -> None:
    model = built(ELLIPTICAL, {"gradient": gradient}).double()
    x = pixels().double().requires_grad_()
    direction = 1e-5 * (pixels(1).double() - 0.5)
    (slope,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    with torch.no_grad():
        measured = (model(x + direction) - model(x - direction))[:, 0].sum() / 2
    assert bool(((slope * direction).sum() / measured - 1).abs() < 1e-5) == whole


def test_a_network_with_a_layer_of_every_kind_compiles_whole_to_the_same_function() -> None:
    script = Path(__file__).with_name("compile_network.py")
    layers = json.dumps([(variant.name, settings) for variant, settings in MODELS])
    done = subprocess.run([sys.executable, str(script), layers], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-6


@every_model
def test_checkpointing_gives_the_same_gradients(variant: Variant, settings: Mapping[str, Any]) -> None:
    gradients = []
    for checkpointing, repeat in ((False, 0), (True, 0), (True, 1)):
        model = built(variant, settings, drop_path=0.5).double().train()
        model.checkpointing = checkpointing
        model(pixels().double(), noise(model, repeat, training=True)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        assert len(gradients[-1]) == len(list(model.parameters()))
    plain, checkpointed, other = gradients
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(plain, other, strict=True))


# DropPath and noise


def drop_path_model(**sizes: Any) -> tuple[VisionTransformer, Block]:
    model = built(SOFTMAX, {}, drop_path=0.25, depth=2, **sizes).train()
    block = model.blocks[1]
    assert isinstance(block, Block)
    return model, block


def test_drop_path_grows_from_nothing_to_its_full_rate() -> None:
    rates = [block.drop_path for block in built(SOFTMAX, {}, drop_path=0.3).blocks]
    assert rates == pytest.approx([0, 0.15, 0.3])


@pytest.mark.parametrize("uniform", [0.0, 0.2499])
def test_a_dropped_block_leaves_the_stream_alone(uniform: float) -> None:
    model, _ = drop_path_model()
    seen = tapped(model, {"1.drop_path": torch.full((BATCH, 2), uniform)})
    assert torch.equal(seen["stream", 2], seen["stream", 1])


@pytest.mark.parametrize("uniform", [0.25, 0.99])
def test_a_kept_branch_is_scaled_up(uniform: float) -> None:
    model, block = drop_path_model()
    seen = tapped(model, {"1.drop_path": torch.tensor([uniform, 0.0]).expand(BATCH, 2)})
    x = seen["stream", 1]
    branch, _ = block.attention(block.norm1(x), x, None, None, None, {})
    torch.testing.assert_close(seen["stream", 2], x + branch / 0.75)

    seen = tapped(model, {"1.drop_path": torch.tensor([0.0, uniform]).expand(BATCH, 2)})
    branch = block.fc2(F.gelu(block.fc1(block.norm2(x))))
    torch.testing.assert_close(seen["stream", 2], x + branch / 0.75)


def test_samples_are_dropped_one_by_one() -> None:
    model, _ = drop_path_model()
    uniform = torch.zeros(BATCH, 2)
    uniform[3] = 0.9
    seen = tapped(model, {"1.drop_path": uniform})
    changed = (seen["stream", 2] != seen["stream", 1]).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [3]


def test_a_branch_is_the_same_on_average() -> None:
    _, block = drop_path_model()
    grid = (torch.arange(1000) + 0.5) / 1000
    mean = kept(torch.ones(1000, 2, 3), block.drop_path, grid).mean(0)
    torch.testing.assert_close(mean, torch.ones(2, 3))


def test_nothing_is_dropped_outside_training() -> None:
    model, _ = drop_path_model()
    plain = built(SOFTMAX, {}, depth=2)
    assert torch.equal(model.eval()(pixels()), plain(pixels()))


def test_noise_is_asked_for_by_block_and_handed_to_the_core_without_it() -> None:
    model = build(Noisy, {}, SHAPE._replace(depth=2, drop_path=0.5), 0)
    assert [n.name for n in model.noise()] == ["0.offset", "0.lesson", "1.offset", "1.lesson", "1.drop_path"]
    cores = [block.get_submodule("attention.core") for block in model.blocks]
    model.eval()(pixels(), noise(model))
    assert [core.names for core in cores] == [{"offset"}, {"offset"}]
    model.train()(pixels(), noise(model, training=True))
    assert [core.names for core in cores] == [{"offset", "lesson"}, {"offset", "lesson", "drop_path"}]


def test_missing_noise_is_named() -> None:
    model = built(RANDOM_METRIC, RESAMPLED, drop_path=0.5)
    with pytest.raises(KeyError, match=r"1\.metric"):
        model.eval()(pixels())
    given = noise(model)
    with pytest.raises(KeyError, match=r"1\.drop_path"):
        model.train()(pixels(), given)


def test_a_stochastic_network_repeats_itself_under_the_same_noise_only() -> None:
    model = built(RANDOM_METRIC, RESAMPLED).eval()
    torch.manual_seed(0)
    first = model(pixels(), noise(model, 0))
    torch.manual_seed(1)
    assert torch.equal(first, model(pixels(), noise(model, 0)))
    assert not torch.equal(first, model(pixels(), noise(model, 1)))


# Hook points and layer state


def test_taps_show_every_stream_and_what_is_read_from_it() -> None:
    model = built(SOFTMAX, {})
    seen = tapped(model)
    assert list(seen) == [(point, layer) for layer in range(SHAPE.depth + 1) for point in ("stream", "read")]
    for layer in range(SHAPE.depth + 1):
        stream, read = seen["stream", layer], seen["read", layer]
        centred = stream - stream.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(read, centred / spread, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(read.mean(-1), torch.zeros(BATCH, 9), rtol=0, atol=1e-5)
        torch.testing.assert_close(read.square().mean(-1), torch.ones(BATCH, 9), rtol=0, atol=1e-3)
    torch.testing.assert_close(model.head(seen["read", SHAPE.depth].mean(1)), model(pixels()))


def test_a_tap_does_not_change_the_logits() -> None:
    model = built(ELLIPTICAL, {})
    assert torch.equal(model(pixels(), None, lambda point, layer, x: None), model(pixels()))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_core_is_shown_the_first_and_the_previous_layer(checkpointing: bool) -> None:
    model = build(Probe, {}, SHAPE, 0).train()
    model.checkpointing = checkpointing
    model(pixels())
    cores = [block.get_submodule("attention.core") for block in model.blocks]
    assert [core.site.layer for core in cores] == [0, 1, 2]
    assert cores[0].ctx.first is None
    assert cores[0].ctx.previous is None
    for layer in (1, 2):
        for tensor, first, previous in zip(
            ("q", "k", "v"), cores[layer].ctx.first, cores[layer].ctx.previous, strict=True
        ):
            assert torch.equal(first, getattr(cores[0].given, tensor))
            assert torch.equal(previous, getattr(cores[layer - 1].given, tensor))


def test_a_core_is_shown_the_stream_and_its_norm() -> None:
    model = build(Probe, {}, SHAPE, 0)
    seen = tapped(model)
    for layer, block in enumerate(model.blocks):
        ctx = block.get_submodule("attention.core").ctx
        assert torch.equal(ctx.residual, seen["stream", layer])
        assert torch.equal(ctx.x, seen["read", layer])
        assert ctx.mask is None


def test_a_core_is_told_where_it_sits() -> None:
    site = build(Probe, {}, SHAPE, 0).blocks[1].get_submodule("attention.core").site
    assert site == Site(1, 3, 15, 5, 3, 9, 0, (3, 3), False, 3**-0.5)


# Calibration


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_a_calibrating_pass_sets_every_layer_after_the_first_and_no_other_pass_does(checkpointing: bool) -> None:
    model = built(STATIC_METRIC, {}).train()
    model.checkpointing = checkpointing
    frozen = [block.get_buffer("attention.core.frozen") for block in model.blocks]
    model(pixels())
    assert all(torch.equal(f, torch.ones(5, 3)) for f in frozen)
    model(pixels(), calibrating=True)
    assert [torch.equal(f, torch.ones(5, 3)) for f in frozen] == [True, False, False]


@every_model
def test_a_network_says_whether_it_calibrates(variant: Variant, settings: Mapping[str, Any]) -> None:
    assert built(variant, settings).calibrates == variant.calibrates


def test_a_calibrated_layer_reads_layers_that_are_calibrated_already() -> None:
    once, twice = built(STATIC_METRIC, {}), built(STATIC_METRIC, {})
    once(pixels(), calibrating=True)
    twice(pixels(), calibrating=True)
    twice(pixels(), calibrating=True)
    for name, tensor in once.state_dict().items():
        torch.testing.assert_close(tensor, twice.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"patch": 3}, {"heads": 5}, {"drop_path": 1.0}], ids=lambda wrong: next(iter(wrong)))
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"cannot be cut|cannot be shared|below 1"):
        build(SOFTMAX.core, {}, VisionTransformerShape()._replace(**wrong), 0)


# What a variant asks of the backbone


def test_extra_tokens_come_first_and_neither_the_head_nor_a_tap_sees_them() -> None:
    model = build(Probe, {}, SHAPE._replace(extra_tokens=4, depth=2), 0)
    seen = tapped(model)
    assert all(tokens.shape == (BATCH, 9, 15) for tokens in seen.values())
    probe = model.blocks[0].get_submodule("attention.core")
    assert probe.ctx.residual.shape == (BATCH, 13, 15)
    assert torch.equal(probe.ctx.residual[:, :4], model.state_dict()["extra.weight"].expand(BATCH, -1, -1))
    assert torch.equal(probe.ctx.residual[:, 4:], seen["stream", 0])
    assert probe.site.tokens == 13
    assert probe.site.prefix_tokens == 4
    torch.testing.assert_close(model(pixels()), model.head(model.norm(seen["stream", 2]).mean(1)))


def test_extra_tokens_leave_the_other_initial_values_alone() -> None:
    plain, more = built(SOFTMAX, {}).state_dict(), built(REGISTERS, {}, extra_tokens=4).state_dict()
    assert set(more) - set(plain) == {"extra.weight"}
    assert all(torch.equal(more[name], tensor) for name, tensor in plain.items())
    assert more["extra.weight"].std() == pytest.approx(0.02, rel=0.3)


def test_a_centre_norm_centres_and_does_not_divide() -> None:
    model = build(Probe, {}, SHAPE._replace(norm="center_norm"), 0)
    seen = tapped(model)
    stream = seen["stream", 1]
    torch.testing.assert_close(seen["read", 1], 15 / 14 * (stream - stream.mean(-1, keepdim=True)))
    assert not any(isinstance(module, nn.LayerNorm) for module in model.modules())


@pytest.mark.parametrize("more", [0, 7, 500, -900])
def test_widening_meets_a_number_of_parameters_to_within_half_a_hidden_unit_a_block(more: int) -> None:
    wanted = parameter_count(SOFTMAX.core, {}, SHAPE) + more
    shape = widened(SHAPE, SOFTMAX.core, {}, wanted)
    model = build(SOFTMAX.core, {}, shape, 0)
    assert abs(sum(p.numel() for p in model.parameters()) - wanted) <= 3 * (2 * 15 + 1) / 2


def test_a_network_that_cannot_be_narrowed_so_far_is_refused() -> None:
    with pytest.raises(ValueError, match="no MLP is narrow enough for 10 parameters"):
        widened(SHAPE, SOFTMAX.core, {}, 10)


def test_a_variant_gets_the_tokens_and_the_norm_that_it_asks_for() -> None:
    assert carrying(SHAPE, SOFTMAX, {}) == SHAPE
    assert carrying(SHAPE, REGISTERS, {"count": 3}) == SHAPE._replace(extra_tokens=3)
    asking = replace(SOFTMAX, norm="center_norm")
    assert carrying(SHAPE, asking, {}) == SHAPE._replace(norm="center_norm")
