"""Models of timm keep their function under softmax and their weights under every variant; what cannot is refused."""

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from attnbench.attacks.draw import Draw
from attnbench.bench.noise import drawn
from attnbench.models.attention import QKV, Context
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.noise import Noise
from attnbench.models.position import Resampling, resampled
from attnbench.models.site import Site
from attnbench.models.timm_model import build_timm
from attnbench.models.timm_network import TimmFacts, TimmNetwork
from attnbench.models.variant import Variant
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
from attnbench.models.variants.wide_softmax import WIDE_SOFTMAX

BATCH, IMAGE, CLASSES, DEPTH = 5, 40, 7, 3
SMALL = {"depth": DEPTH, "embed_dim": 36, "num_heads": 3, "patch_size": 8}
IDS = [str(i) for i in range(BATCH)]
RESAMPLED = {"draw": "resampled"}
MEAN_POOL = {"global_pool": "avg", "class_token": False}
SHARED = {"num_kv_heads": (4, 2, 2), "rope_rescale_coords": 1.0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "class_token": ("vit_tiny_patch16_224", {}),
    "mean_pool": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "no_class_token": ("vit_tiny_patch16_224", MEAN_POOL),
    "no_positions": ("vit_tiny_patch16_224", {"pos_embed": "none"}),
    "dynamic_size": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
    "no_final_norm": ("vit_tiny_patch16_224", {**MEAN_POOL, "final_norm": False}),
    "max_pool": ("vit_tiny_patch16_224", {"global_pool": "max"}),
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True, "qkv_bias": False}),
    "inner_norms": ("vit_tiny_patch16_224", {"scale_attn_norm": True, "scale_mlp_norm": True}),
    "registers": ("vit_little_patch16_reg4_gap_256", {}),
    "layer_scale": ("vit_small_patch14_reg4_dinov2", {"init_values": 0.5}),
    "pre_norm": ("vit_base_patch16_clip_224", {}),
    "map_pool": ("vit_base_patch16_siglip_224", {}),
    "rms_norm": ("aimv2_large_patch14_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "eva_fused_biases": ("eva_giant_patch14_224", {}),
    "eva_rope_swiglu": ("eva02_tiny_patch14_224", {}),
    "eva_apart": ("eva02_base_patch14_224", {}),
    "eva_inner_norm": ("eva02_large_patch14_clip_224", {}),
    "rope_axial": ("vit_small_patch16_rope_224", {}),
    "rope_mixed": ("vit_small_patch16_rope_mixed_224", {}),
    "rope_mixed_dynamic": ("vit_small_patch16_rope_mixed_ape_224", {"dynamic_img_size": True}),
    "rope_half": ("vit_small_patch16_dinov3", {}),
    "rope_map_pool": ("vit_pe_core_tiny_patch16_384", {"attn_pool_num_heads": 3}),
    "shared_keys": ("vit_base_patch16_sapiens2", {"embed_dim": 48, "num_heads": 4, **SHARED}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
VARIANTS = [(v, {}) for v in (ELLIPTICAL, L2, NEUTRENO, TWICING, QUEST, STATIC_METRIC, RANDOM_METRIC)]
every_variant = pytest.mark.parametrize(
    ("variant", "settings"), [*VARIANTS, (RANDOM_METRIC, RESAMPLED)], ids=lambda value: getattr(value, "name", "")
)


def built(kind: str, variant: Variant = SOFTMAX, settings: Mapping[str, Any] | None = None, **more: Any) -> TimmNetwork:
    name, options = KINDS[kind]
    given = {"classes": CLASSES, "image": IMAGE, "seed": 0, **more}
    given["options"] = {**SMALL, **options, **more.get("options", {})}
    return build_timm(name, variant, settings or {}, **given)


def disturbed(network: TimmNetwork) -> TimmNetwork:
    """Move every parameter off its initial value, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return network


def pixels(dtype: torch.dtype = torch.float32, channels: int = 3) -> Tensor:
    x = torch.rand(BATCH, channels, IMAGE, IMAGE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype)


def noise(network: TimmNetwork, repeat: int = 0, training: bool = False) -> dict[str, Tensor]:
    return drawn(network.noise(), IDS, Draw(0, "", "test", repeat), training=training)


def tapped(network: TimmNetwork, given: Mapping[str, Tensor] | None = None) -> dict[tuple[str, int], Tensor]:
    seen: dict[tuple[str, int], Tensor] = {}

    def tap(point: str, layer: int, x: Tensor) -> None:
        assert (point, layer) not in seen
        seen[point, layer] = x

    network(pixels(next(network.parameters()).dtype), given, tap)
    return seen


def untouched(network: TimmNetwork, x: Tensor) -> Tensor:
    """What timm's own code makes of the same weights."""
    logits: Tensor = network.model((x - network.mean) / network.std)
    return logits


class Probe(nn.Module):
    """A core that mixes uniformly and keeps what it was given."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        self.given, self.ctx = QKV(q, k, v), ctx
        return v.mean(-2, keepdim=True).expand_as(v)


class Gained(nn.Module):
    """A core that acts after the output projection."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return v

    def merge(self, y: Tensor, x: Tensor, residual: Tensor) -> Tensor:
        return self.gain * y + x - residual


class Projecting(Probe):
    def project(self, x: Tensor, weights: Any) -> QKV:
        raise AssertionError


class Reducing(Probe):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return v.mean(-2, keepdim=True)


PROBE = replace(SOFTMAX, name="probe", core=Probe, settings={})


# Softmax


@every_kind
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_softmax_computes_what_timm_computes(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    network = disturbed(built(kind)).to(dtype).eval()
    theirs, ours = pixels(dtype).requires_grad_(), pixels(dtype).requires_grad_()
    wanted, got = untouched(network, theirs), network(ours)
    assert got.shape == (BATCH, CLASSES)
    of = list(network.model.parameters())
    wanted_gradients = torch.autograd.grad(wanted.square().sum(), [theirs, *of], allow_unused=True)
    gradients = torch.autograd.grad(got.square().sum(), [ours, *of], allow_unused=True)
    pairs = [(got, wanted), *zip(gradients, wanted_gradients, strict=True)]
    assert gradients[0] is not None
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.detach().abs().max().clamp_min(1e-3)))


def test_a_gate_of_the_model_acts_before_its_output_projection() -> None:
    model = built("eva_apart").model
    for block in model.blocks:
        block.attn.gate = nn.Linear(36, 36)
    network = TimmNetwork(model, SOFTMAX.core, TimmFacts("gated", "", "", "", "", "", (0.5,), (0.5,))).eval()
    torch.testing.assert_close(network(pixels()), untouched(network, pixels()))


def test_timms_names_and_its_own_forward_stay() -> None:
    network = built("class_token", ELLIPTICAL)
    twin = timm.create_model("vit_tiny_patch16_224", img_size=IMAGE, num_classes=CLASSES, **SMALL)
    twin.load_state_dict(network.inner.state_dict(), strict=True)
    x = pixels()
    assert torch.equal(twin.eval()((x - 0.5) / 0.5), untouched(network.eval(), x))


# Variants


@every_variant
@pytest.mark.parametrize("kind", ["mean_pool", "eva_rope_swiglu", "rope_mixed", "shared_keys"])
def test_a_variant_changes_the_logits_and_trains_every_parameter(
    kind: str, variant: Variant, settings: Mapping[str, Any]
) -> None:
    network, plain = disturbed(built(kind, variant, settings)), disturbed(built(kind))
    given = noise(network)
    if network.calibrates:
        network(pixels(), given, calibrating=True)
    got = network.eval()(pixels(), given)
    assert (got - plain.eval()(pixels())).abs().max() > 1e-4
    got.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_core_may_act_after_the_output_projection() -> None:
    network = disturbed(built("layer_scale", replace(SOFTMAX, core=Gained, settings={}), options={"depth": 1}))
    seen = tapped(network.eval())
    block, x = network.model.blocks[0], network.tokens(pixels())[0]
    read = block.norm1(x)
    values = read @ block.attn.qkv.weight[72:].T + block.attn.qkv.bias[72:]
    x = x + block.ls1(network.cores[0].gain * block.attn.proj(values) + read - x)
    x = x + block.ls2(block.mlp(block.norm2(x)))
    torch.testing.assert_close(seen["stream", 1], x[:, 5:])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["class_token", "rope_half", "shared_keys"])
def test_a_core_is_shown_the_layers_below_it(kind: str, checkpointing: bool) -> None:
    network = built(kind, PROBE).train()
    network.checkpointing = checkpointing
    network(pixels())
    cores: list[Any] = list(network.cores)
    assert cores[0].ctx.first is None
    assert cores[0].ctx.previous is None
    for layer in (1, 2):
        for name, first, previous in zip("qkv", cores[layer].ctx.first, cores[layer].ctx.previous, strict=True):
            assert torch.equal(first, getattr(cores[0].given, name))
            assert torch.equal(previous, getattr(cores[layer - 1].given, name))


@pytest.mark.parametrize(("kind", "prefix"), [("class_token", 1), ("layer_scale", 5), ("no_class_token", 0)])
def test_a_core_is_told_where_it_sits_and_shown_what_is_read(kind: str, prefix: int) -> None:
    network = disturbed(built(kind, PROBE)).eval()
    seen = tapped(network)
    for layer, core in enumerate(network.cores):
        norm = network.model.blocks[layer].norm1
        assert core.site == Site(layer, DEPTH, 36, 3, 12, prefix + 25, prefix, (5, 5), False, 12**-0.5)
        assert core.ctx.mask is None
        assert torch.equal(core.ctx.residual[:, prefix:], seen["stream", layer])
        torch.testing.assert_close(core.ctx.x[:, prefix:], seen["read", layer] * norm.weight + norm.bias)


def test_measured_numbers_reach_their_layers() -> None:
    spread = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    network = built("class_token", SOFTMAX_MATCHED, measured={"logit_spread": spread})
    for layer, core in enumerate(network.cores):
        assert any(torch.equal(tensor.flatten(), spread[layer]) for tensor in core.state_dict().values())


def test_a_calibrating_pass_sets_frozen_quantities_and_no_other_pass_does() -> None:
    network = built("mean_pool", STATIC_METRIC).train()
    assert network.calibrates
    assert not built("mean_pool").calibrates
    frozen = [core.get_buffer("frozen") for core in network.cores]
    network(pixels())
    assert all(bool((f == 1).all()) for f in frozen)
    network(pixels(), calibrating=True)
    assert [bool((f == 1).all()) for f in frozen] == [True, False, False]


# Taps


@every_kind
def test_taps_show_timms_own_intermediate_patches(kind: str) -> None:
    network = disturbed(built(kind)).double().eval()
    seen = tapped(network)
    assert list(seen) == [(point, layer) for layer in range(DEPTH + 1) for point in ("stream", "read")]
    assert {tuple(x.shape) for x in seen.values()} == {(BATCH, 25, network.model.embed_dim)}
    x = (pixels(torch.float64) - network.mean) / network.std
    theirs = network.model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
    for layer, wanted in enumerate(theirs, start=1):
        torch.testing.assert_close(seen["stream", layer], wanted)
    for layer, block in enumerate(network.model.blocks):
        bias = getattr(block.norm1, "bias", None)
        affine = seen["read", layer] * block.norm1.weight + (0 if bias is None else bias)
        torch.testing.assert_close(affine, block.norm1(seen["stream", layer]))


@pytest.mark.parametrize("kind", ["class_token", "rms_norm", "map_pool", "rope_mixed"])
def test_the_last_tap_shows_what_the_final_norm_makes_without_its_affine_part(kind: str) -> None:
    network = disturbed(built(kind)).double().eval()
    seen, norm = tapped(network), network.model.norm
    affine = seen["read", DEPTH] * norm.weight + getattr(norm, "bias", 0)
    torch.testing.assert_close(affine, norm(seen["stream", DEPTH]))


@pytest.mark.parametrize("kind", ["mean_pool", "no_class_token", "registers", "eva_fused_biases", "eva_rope_swiglu"])
def test_the_last_tap_of_a_mean_pool_averages_to_what_the_head_reads(kind: str) -> None:
    network = disturbed(built(kind)).double().eval()
    model, read = network.model, tapped(network)["read", DEPTH]
    assert isinstance(model.norm, nn.Identity)
    logits = model.head(read.mean(1) * model.fc_norm.weight + model.fc_norm.bias)
    torch.testing.assert_close(logits, network(pixels(torch.float64)))


def test_a_head_without_norm_reads_the_stream() -> None:
    seen = tapped(disturbed(built("no_final_norm")).eval())
    assert torch.equal(seen["read", DEPTH], seen["stream", DEPTH])


def test_a_tap_does_not_change_the_logits() -> None:
    network = built("registers", ELLIPTICAL).eval()
    assert torch.equal(network(pixels(), None, lambda point, layer, x: None), network(pixels()))


# Randomness


def test_noise_is_asked_for_by_block_and_missing_noise_is_named() -> None:
    network = built("class_token", RANDOM_METRIC, RESAMPLED, options={"drop_path_rate": 0.5})
    assert [n.name for n in network.noise()] == ["1.metric", "1.drop_path", "2.metric", "2.drop_path"]
    assert network.noise()[1] == Noise("1.drop_path", (2,), "uniform", "train")
    with pytest.raises(KeyError, match=r"1\.metric"):
        network.eval()(pixels())
    with pytest.raises(KeyError, match=r"1\.drop_path"):
        network.train()(pixels(), noise(network))
    first = network.eval()(pixels(), noise(network))
    assert torch.equal(first, network(pixels(), noise(network)))
    assert not torch.equal(first, network(pixels(), noise(network, repeat=1)))


def test_drop_path_drops_a_branch_of_a_sample_and_scales_up_what_it_keeps() -> None:
    network = disturbed(built("no_class_token", options={"drop_path_rate": 0.25, "depth": 2})).train()
    uniform = torch.tensor([[0.0, 0.2499], [0.25, 0.0], [0.0, 0.9], [0.5, 0.5], [0.0, 0.0]])
    seen = tapped(network, {"1.drop_path": uniform})
    block, x, after = network.model.blocks[1], seen["stream", 1], seen["stream", 2]
    torch.testing.assert_close(after[[0, 4]], x[[0, 4]], rtol=0, atol=0)
    torch.testing.assert_close(after[1], (x + block.attn(block.norm1(x)) / 0.75)[1])
    torch.testing.assert_close(after[2], (x + block.mlp(block.norm2(x)) / 0.75)[2])
    y = x + block.attn(block.norm1(x)) / 0.75
    torch.testing.assert_close(after[3], (y + block.mlp(block.norm2(y)) / 0.75)[3])


@pytest.mark.parametrize("training", [False, True])
def test_neither_building_nor_running_touches_the_global_generator(training: bool) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = built("rope_mixed", RANDOM_METRIC, RESAMPLED, options={"drop_path_rate": 0.5}).train(training)
    network(pixels(), noise(network, training=training))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["class_token", "shared_keys"])
@pytest.mark.parametrize(("variant", "settings"), [(NEUTRENO, {}), (ELLIPTICAL, {}), (RANDOM_METRIC, RESAMPLED)])
def test_checkpointing_leaves_every_gradient_alone(kind: str, variant: Variant, settings: Mapping[str, Any]) -> None:
    network = disturbed(built(kind, variant, settings, options={"drop_path_rate": 0.4})).train()
    given, gradients = noise(network, training=True), []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        loss = network(pixels(), given).square().sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=0)


@pytest.mark.parametrize(("training", "checkpointing", "calls"), [(True, True, 2), (True, False, 1), (False, True, 1)])
def test_checkpointing_computes_blocks_again_while_training(training: bool, checkpointing: bool, calls: int) -> None:
    network, seen = built("class_token").train(training), []
    network.checkpointing = checkpointing
    network.cores[1].register_forward_hook(lambda *_: seen.append(1))
    network(pixels()).square().sum().backward()
    assert len(seen) == calls


# Initial values


@pytest.mark.parametrize("kind", ["class_token", "layer_scale", "eva_apart", "rope_mixed", "map_pool"])
def test_all_variants_start_from_the_same_values_whatever_was_drawn_before(kind: str) -> None:
    torch.manual_seed(0)
    plain = built(kind).state_dict()
    torch.manual_seed(1)
    other = built(kind, ELLIPTICAL).state_dict()
    assert all(torch.equal(other[name], tensor) for name, tensor in plain.items())
    another = built(kind, seed=1).state_dict()
    drawn_ones = [name for name, tensor in plain.items() if tensor.unique().numel() > 1]
    assert {"model.head.weight", "model.pos_embed", "model.blocks.2.mlp.fc2.weight"} & set(drawn_ones)
    assert not any(torch.equal(another[name], plain[name]) for name in drawn_ones)


def test_initial_values_depend_on_the_name_and_not_on_the_depth() -> None:
    deep, shallow = built("class_token").state_dict(), built("class_token", options={"depth": 1}).state_dict()
    assert set(shallow) < set(deep)
    assert all(torch.equal(deep[name], tensor) for name, tensor in shallow.items())


def test_a_fused_projection_is_drawn_as_three() -> None:
    """Xavier's bound for 36 to 36 is sqrt(6 / 72), and sqrt(6 / 144) for 36 to 108."""
    network = built("class_token")
    for part in network.model.blocks[0].attn.qkv.weight.detach().chunk(3):
        assert 0.99 * (6 / 72) ** 0.5 < float(part.abs().max()) <= (6 / 72) ** 0.5
    assert float(network.model.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_a_state_is_timms_tensors_and_the_cores_own() -> None:
    network = built("class_token", QUEST)
    names = set(network.state_dict())
    assert {name for name in names if not name.startswith("cores.")} == {
        f"model.{n}" for n in network.inner.state_dict()
    }
    copied = copy.deepcopy(network)
    draw_initial_values(copied, 5)
    copied.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(copied.eval()(pixels()), network.eval()(pixels()))


# Weights


def saved(
    path: Path, kind: str = "class_token", change: Mapping[str, Tensor | None] | None = None, **more: Any
) -> Path:
    """Write the weights of a disturbed network, some of them replaced or taken out."""
    state = {**disturbed(built(kind, **more)).inner.state_dict(), **(change or {})}
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items() if tensor is not None}, path / "w.safetensors"
    )
    return path / "w.safetensors"


def test_weights_are_loaded_and_the_facts_say_so(tmp_path: Path) -> None:
    path = saved(tmp_path)
    network = built("class_token", ELLIPTICAL, weights=path)
    assert torch.equal(untouched(network.eval(), pixels()), disturbed(built("class_token")).eval()(pixels()))
    half = (0.5, 0.5, 0.5)
    assert network.facts == TimmFacts(
        "vit_tiny_patch16_224", ELLIPTICAL.pretrained, "w.safetensors", "kept", "kept", "token", half, half
    )
    assert built("mean_pool").facts == TimmFacts(
        "vit_tiny_patch16_224", "untrained", "random", "random", "random", "avg", half, half
    )
    assert built("no_positions").facts.position == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": None}, "it lacks norm.bias; allowed"),
        ({"mask_token": torch.zeros(1)}, "holds what the model does not have: mask_token"),
        ({"norm.bias": torch.zeros(35)}, r"differs in shape: norm.bias \[35\] for \[36\]"),
        ({"head.weight": torch.zeros(9, 36)}, r"head.weight \[9, 36\] for \[7, 36\]; set head='new'"),
        ({"head.weight": None, "head.bias": None}, "lacks head.bias, head.weight; set head='new'"),
        ({f"junk{i}": torch.zeros(1) for i in range(8)}, "junk0, junk1, junk2, junk3, junk4, junk5 and 2 more"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_their_names(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    path = saved(tmp_path, change=change)
    with pytest.raises(ValueError, match=f"w.safetensors does not fit this model.*{message}"):
        built("class_token", weights=path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"w\.pth cannot be read .* a safetensors file with timm's names is allowed"):
        built("class_token", weights=tmp_path / "w.pth")
    with pytest.raises(ValueError, match="set one of the two"):
        built("class_token", weights=tmp_path / "w.pth", pretrained=True)


@pytest.mark.parametrize("kind", ["class_token", "distilled"])
def test_a_new_head_keeps_its_own_initial_values_and_the_rest_is_loaded(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, kind, classes=9)
    network, fresh, file = built(kind, weights=path, head="new"), built(kind), load_file(path)
    for name, tensor in network.inner.state_dict().items():
        wanted = fresh.inner.state_dict()[name] if name.startswith("head") else file[name]
        assert torch.equal(tensor, wanted), name
    assert network.facts.head == "new"


@pytest.mark.parametrize("how", ["bicubic", "antialiased", "dinov2"])
@pytest.mark.parametrize(("kind", "prefix"), [("class_token", 1), ("registers", 0), ("eva_rope_swiglu", 1)])
def test_a_position_table_for_another_grid_is_resampled_by_the_rule_that_is_asked_for(
    tmp_path: Path, kind: str, prefix: int, how: Resampling
) -> None:
    path = saved(tmp_path, kind, image=72)
    with pytest.raises(
        ValueError, match=r"another grid \(9 x 9 -> 5 x 5\), and no rule .* bicubic, antialiased, dinov2"
    ):
        built(kind, weights=path)
    network, table = built(kind, weights=path, resampling=how), load_file(path)["pos_embed"]
    assert network.facts.position == f"9 x 9 -> 5 x 5, {how}"
    assert torch.equal(network.model.pos_embed, resampled(table, prefix, (9, 9), (5, 5), how))
    theirs = resample_abs_pos_embed(table, [5, 5], num_prefix_tokens=prefix, antialias=how == "antialiased")
    assert torch.allclose(network.model.pos_embed, theirs) == (how != "dinov2")


def test_pretrained_weights_enter_like_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    published, create = disturbed(built("class_token", classes=9, image=72)).inner, timm.create_model

    def publish(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        return published if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", publish)
    network = built("class_token", L2, pretrained=True, head="new", resampling="antialiased")
    assert network.facts[1:5] == (L2.pretrained, "pretrained", "new", "9 x 9 -> 5 x 5, antialiased")
    assert torch.equal(network.model.norm.weight, published.get_parameter("norm.weight"))
    with pytest.raises(ValueError, match=r"pretrained does not fit this model: it differs in shape: head\.bias"):
        built("class_token", pretrained=True, resampling="antialiased")


def test_without_a_network_pretrained_weights_are_an_error_that_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = timm.create_model

    def unreachable(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise ConnectionError("cannot reach the hub\nmore")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(OSError, match=r"could not get them \(cannot reach the hub\).*local safetensors file"):
        built("class_token", pretrained=True)


# Normalisation


def test_pixels_are_normalised_inside_as_the_model_asks_or_as_is_said() -> None:
    assert built("class_token").facts.mean == (0.5, 0.5, 0.5)
    assert built("pre_norm").facts.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    network = built("class_token", mean=(0.1, 0.2, 0.3), std=0.25).eval()
    shift = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(network(pixels()), network.model((pixels() - shift) * 4))
    grey = built("class_token", channels=1, mean=0.5, std=(0.5,)).eval()
    torch.testing.assert_close(grey(pixels(channels=1)), grey.model(pixels(channels=1) * 2 - 1))


# Refusals


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "vit_base_patch16_xp_224",
            SMALL,
            r"blocks are vision_transformer\.ParallelScalingBlock; supported are vision_",
        ),
        ("vit_dpwee_patch16_reg1_gap_256", SMALL, r"blocks are vision_transformer\.DiffParallelScalingBlock"),
        ("vit_small_patch16_18x2_224", SMALL, r"blocks are vision_transformer\.ParallelThingsBlock"),
        ("vit_base_patch16_rpn_224", SMALL, r"blocks are vision_transformer\.ResPostBlock"),
        ("eva02_enormous_patch14_clip_224", SMALL, r"blocks are eva\.EvaBlockPostNorm"),
        ("vit_dwee_patch16_reg1_gap_256", SMALL, r"blocks attend with diff_attention\.DiffAttention"),
        ("vit_small_r26_s32_224", {"depth": 1}, r"embeds patches with hybrid_embed\.HybridEmbed"),
        ("beit_base_patch16_224", SMALL, r"it is a beit\.Beit of beit\.Block; supported are"),
        ("vit_relpos_small_patch16_224", SMALL, r"it is a vision_transformer_relpos\.VisionTransformerRelPos"),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "img_size": 56}, r"it is a swin_transformer\.Swin"),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": ""}, "it returns tokens and no logits"),
        ("vit_tiny_patch16_224", {**SMALL, "drop_rate": 0.1}, "its head_drop drops with probability 0.1"),
        ("vit_tiny_patch16_224", {**SMALL, "pos_drop_rate": 0.1}, "its pos_drop drops"),
        ("vit_tiny_patch16_224", {**SMALL, "attn_drop_rate": 0.1}, r"its blocks\.0\.attn\.attn_drop drops"),
        ("vit_tiny_patch16_224", {**SMALL, "proj_drop_rate": 0.1}, r"its blocks\.0\.attn\.proj_drop drops"),
        ("vit_tiny_patch16_224", {**SMALL, "patch_drop_rate": 0.1}, "its patch_drop drops"),
        ("eva02_tiny_patch14_224", {**SMALL, "patch_drop_rate": 0.1}, "its patch_drop drops"),
        ("vit_tiny_patch16_224", {**SMALL, "norm_layer": "simplenorm"}, r"attention reads through norm\.SimpleNorm"),
        ("vit_small_patch16_dinov3", {**SMALL, "rope_jitter_coords": 2.0}, r"options rope_jitter_coords=1\.0"),
    ],
)
def test_models_that_cannot_carry_a_core_are_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    image = options.get("img_size", 64)
    given = {option: value for option, value in options.items() if option != "img_size"}
    with pytest.raises(ValueError, match=f"timm:{name} cannot carry another attention: .*{message}"):
        build_timm(name, SOFTMAX, {}, classes=7, image=image, seed=0, options=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": 41}, "at 41 px; allowed are at least 1 class and a multiple of the patch, 8 x 8"),
        ({"classes": 0}, "asked for 0 classes"),
        ({"options": {"num_classes": 3}}, "the options num_classes; use the arguments classes"),
        ({"options": {"widht": 3}}, "cannot be built at 40 px .*widht"),
        ({"channels": 2}, "has 3 numbers for the mean of 2 channels; give `mean`"),
        ({"std": 0.0}, "only numbers above 0"),
    ],
)
def test_sizes_and_options_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"timm:vit_tiny_patch16_224 .*{message}"):
        built("class_token", **given)


def test_an_unknown_name_is_corrected() -> None:
    with pytest.raises(
        ValueError, match="unknown timm model 'vit_tinny_patch16_224'; did you mean 'vit_tiny_patch16_224'"
    ):
        build_timm("vit_tinny_patch16_224", SOFTMAX, {}, classes=7, image=32, seed=0)


def test_a_model_without_an_image_size_is_refused_with_what_to_build() -> None:
    with pytest.raises(ValueError, match=r"timm:resnet18 cannot be built .*a vision transformer"):
        build_timm("resnet18", SOFTMAX, {}, classes=7, image=32, seed=0)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (REGISTERS, "registers cannot enter timm:vit_tiny_patch16_224: it asks for tokens of its own"),
        (WIDE_SOFTMAX, "it asks for MLPs of another width"),
        (replace(SOFTMAX, pretrained="impossible"), "it has other projections"),
        (replace(SOFTMAX, norm="center_norm"), "it asks for the norm center_norm"),
        (replace(SOFTMAX, builds="network"), "it is a whole network"),
        (replace(SOFTMAX, minimum_tokens=26), "it needs 26 tokens, there are 25"),
        (replace(SOFTMAX, heads_multiple_of=2), "it needs a multiple of 2 heads, there are 3"),
        (replace(SOFTMAX, core=Projecting), "cannot carry Projecting: it projects in its own way"),
    ],
)
def test_variants_that_ask_for_more_than_a_core_are_refused(variant: Variant, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built("class_token", variant)


def test_a_misshapen_output_and_a_misshapen_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Reducing returned \[5, 3, 1, 12\], \[5, 3, 26, 12\] is expected"):
        built("class_token", replace(PROBE, core=Reducing))(pixels())
    with pytest.raises(ValueError, match=r"images \[3, 32, 40\], it is built for \[3, 40, 40\]"):
        built("dynamic_size")(pixels()[:, :, :32])


# Trained weights


TRAINED = Path(os.environ.get("ATTNBENCH_DATA", "")) / "weights" / "vit_small_patch14_dinov2.safetensors"
needs_weights = pytest.mark.skipif(
    "ATTNBENCH_DATA" not in os.environ or not TRAINED.exists(),
    reason="ATTNBENCH_DATA names no folder with weights/vit_small_patch14_dinov2.safetensors",
)


@needs_weights
def test_trained_weights_keep_their_function_at_another_size() -> None:
    given = {"classes": 11, "image": 84, "seed": 0, "weights": TRAINED, "head": "new", "resampling": "bicubic"}
    network = build_timm("vit_small_patch14_dinov2", SOFTMAX, {}, **given).eval()
    assert network.facts.position == "37 x 37 -> 6 x 6, bicubic"
    assert network.facts.swap == "lossless"
    state = load_file(TRAINED)
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [6, 6], antialias=False)
    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=84, num_classes=0).eval()
    theirs.load_state_dict(state, strict=True)
    x = torch.rand(3, 3, 84, 84, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = theirs((x - network.mean) / network.std)
        logits = network(x)
    wanted = features @ network.model.head.weight.T + network.model.head.bias
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
