"""Shifts on models that cut gradients or hide: open twins, stand-ins, tokens, conventions of other papers."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnbench.attacks.draw import Draw
from attnbench.attacks.glass import Glass, Steered
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift
from attnbench.bench.ball import sizes
from attnbench.bench.catalog import Entry, open_catalog
from attnbench.bench.cell import fill, fill_trust
from attnbench.bench.shifting import Ensemble, shifted
from attnbench.bench.target import ModelTarget
from attnbench.models.own_network import OwnNetwork
from attnbench.models.variants.elliptical import ELLIPTICAL
from attnbench.models.variants.softmax import SOFTMAX
from attnbench.models.vit import VisionTransformerShape, build

SHAPE = VisionTransformerShape(dim=16, depth=2, heads=2, classes=5, mlp_ratio=2.0)
DRAW = Draw(0, "probe", "shift")


def target(seed: int = 3, core: Any = SOFTMAX.core, **settings: Any) -> ModelTarget:
    return ModelTarget(build(core, settings, SHAPE, seed))


def right(victim: ModelTarget, n: int = 24) -> Samples:
    """Samples that a model gets right."""
    pixels = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    ids = tuple(f"s{i}" for i in range(n))
    return Samples(pixels, victim(pixels, ids, DRAW).argmax(1), ids)


def accuracy() -> list[Any]:
    return [open_catalog().metric("accuracy").value]


@pytest.mark.filterwarnings("ignore::attnbench.attacks.guard.NoGradient")
def test_the_worst_of_both_faces_counts() -> None:
    """One face sees no gradient and finds nothing; the twin computes the same and finds what there is."""
    open_model = build(SOFTMAX.core, {}, SHAPE, 3)
    blind = build(SOFTMAX.core, {}, SHAPE, 3)
    plain = blind.tokens
    blind.tokens = lambda pixels: plain(pixels.detach())  # type: ignore[method-assign]
    pgd = open_catalog().shift("pgd(steps=5)")
    data = right(ModelTarget(open_model))
    alone = fill(ModelTarget(blind), data, pgd, ("0.02", "0.1"), accuracy(), 0, 500)
    both = fill(ModelTarget(blind, opened=ModelTarget(open_model)), data, pgd, ("0.02", "0.1"), accuracy(), 0, 500)
    seen = fill(ModelTarget(open_model), data, pgd, ("0.02", "0.1"), accuracy(), 0, 500)
    values = [[record.value for record in filled.records] for filled in (alone, both, seen)]
    assert values[1] <= values[2] < values[0]
    assert both.facts["opened"]
    assert both.facts["taken_from_open"] > 0
    assert alone.facts["taken_from_open"] == 0


def test_a_twin_is_built_where_a_variant_cuts_gradients() -> None:
    assert ELLIPTICAL.open_settings == {"gradient": "open"}
    cut, opened = (
        target(core=ELLIPTICAL.core, **{**ELLIPTICAL.settings, **more}) for more in ({}, {"gradient": "open"})
    )
    data = right(cut)
    assert torch.equal(cut(data.pixels, data.ids, DRAW), opened(data.pixels, data.ids, DRAW))
    pixels = data.pixels.clone().requires_grad_()
    slopes = [torch.autograd.grad(face(pixels, data.ids, DRAW)[:, 0].sum(), pixels)[0] for face in (cut, opened)]
    assert not torch.equal(*slopes)


def test_of_a_stochastic_model_the_more_harmful_point_is_taken() -> None:
    victim = target()
    data = right(victim)
    victim.deterministic = False
    pgd = open_catalog().shift("pgd(steps=3)").value
    harmful = pgd.apply(data, ("0.2",), DRAW, victim, norm="linf", steps=5, relative_step=0.25, restarts=1, passes=1)[0]

    def weak(samples: Samples, severities: Sequence[str], draw: Draw, face: Any) -> tuple[Tensor, ...]:
        return (harmful if face is victim.opened else samples.pixels,)

    victim.opened = target()
    probe = Shift("probe", weak, "adversarial", "", 1, "", ("0.2",), "", knowledge="white_box")
    found = shifted(Entry(probe, {}, "probe", {}), data, ("0.2",), DRAW, victim)
    assert found.from_open == (24,)
    assert torch.equal(found.rungs[0], harmful)  # type: ignore[arg-type]


def test_a_transfer_attack_finds_what_its_stand_in_shows() -> None:
    """From itself everything transfers, from an unrelated network less; nobody asks for the victim's gradient."""
    victim = target()
    data = right(victim)
    transfer = open_catalog().shift("transfer(steps=5)")
    graded: list[bool] = []
    plain = victim.model.forward

    def watched(pixels: Tensor, *rest: Any) -> Tensor:
        graded.append(pixels.requires_grad)
        return plain(pixels, *rest)

    victim.model.forward = watched  # type: ignore[method-assign]
    twin, other = target(), target(seed=8)
    found = [
        fill(victim, data, transfer, ("0.05", "0.1"), accuracy(), 0, 500, Ensemble([source])).records
        for source in (twin, other)
    ]
    assert [r.value for r in found[0]] < [r.value for r in found[1]]
    assert not any(graded)
    with pytest.raises(ValueError, match="needs a stand-in"):
        fill(victim, data, transfer, ("0.1",), accuracy(), 0, 500)


def test_an_ensemble_speaks_with_the_mean_of_its_scaled_voices() -> None:
    members = [target(), target(seed=8)]
    data = right(members[0], 9)
    voices = [member(data.pixels, data.ids, DRAW) for member in members]
    expected = (voices[0] / voices[0].std(1, keepdim=True) + voices[1] / voices[1].std(1, keepdim=True)) / 2
    assert torch.allclose(Ensemble(members)(data.pixels, data.ids, DRAW), expected)
    assert torch.equal(Ensemble(members[:1])(data.pixels, data.ids, DRAW), voices[0])


def test_a_target_can_be_looked_into() -> None:
    victim = target()
    assert isinstance(victim, Glass)
    assert (victim.layers, victim.prefix_tokens, victim.grid) == (2, 0, (4, 4))
    data = right(victim, 9)
    seen = victim.inside(data.pixels, data.ids, DRAW)
    assert torch.allclose(seen.logits, victim(data.pixels, data.ids, DRAW), atol=1e-6)
    assert [None if a is None else a.shape for a in seen.attention] == [(9, 2, 16, 16)] * 2
    stream = victim.stream(data.pixels, data.ids, DRAW, 0)
    assert torch.equal(stream, victim.model.tokens(data.pixels))
    none = torch.zeros(9, 16, 16)
    assert torch.equal(victim.steered(data.pixels, data.ids, DRAW, 1, none), victim(data.pixels, data.ids, DRAW))


def test_steering_replaces_what_a_block_is_given() -> None:
    """Adding the difference of two images' tokens in front of block 0 turns the one image into the other."""
    victim = target()
    data = right(victim, 18)
    first, second = data.rows(range(9)), data.rows(range(9, 18))
    streams = [victim.stream(part.pixels, part.ids, DRAW, 0) for part in (first, second)]
    moved = victim.steered(first.pixels, first.ids, DRAW, 0, streams[1] - streams[0])
    assert torch.allclose(moved, victim(second.pixels, second.ids, DRAW), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["token_embedding(steps=3)", "adversarial_patch(patch=2,steps=3)", "attention_fool(steps=3)"]
)
def test_attacks_on_attention_run_as_cells(name: str) -> None:
    victim = target()
    data = right(victim)
    entry = open_catalog().shift(name)
    severities = entry.value.severities[:2]
    whole, pieces = (fill(victim, data, entry, severities, accuracy(), 0, size) for size in (24, 5))
    assert all(fact["valid"] for fact in whole.facts["severities"])
    assert whole.outcomes is not None
    assert whole.outcomes.equals(pieces.outcomes)
    moved = whole.outcomes.column("norm").to_pylist()
    budgets = [fact["budget"] for fact in whole.facts["severities"]]
    assert max(moved) <= budgets[-1] * (1 + 1e-6)
    assert max(moved) > 0.9 * budgets[-1] or whole.records[0].value == 0


def test_tokens_moved_too_far_make_a_cell_invalid() -> None:
    def far(samples: Samples, severities: Sequence[str], draw: Draw, victim: Any) -> tuple[Steered, ...]:
        stream = victim.stream(samples.pixels, samples.ids, draw.named("stream"), 1)
        centred = stream - stream.mean(-1, keepdim=True)
        return tuple(Steered(samples.pixels, 1, 0.11 * centred) for _ in severities)

    victim = target()
    probe = Shift("probe", far, "adversarial", "", 1, "", ("0.1",), "", norm="tokens", ladder=True)
    filled = fill(victim, right(victim), Entry(probe, {}, "probe", {}), ("0.1", "0.2"), accuracy(), 0, 500)
    assert [fact["valid"] for fact in filled.facts["severities"]] == [False, True]
    assert filled.facts["severities"][0]["largest_perturbation"] == pytest.approx(0.11, rel=1e-5)


def test_patches_are_counted() -> None:
    plain = torch.zeros(1, 3, 6, 6)
    moved = plain.clone()
    moved[0, 1, 0, 0] = 1e-3
    moved[0, 2, 1, 1] = -1e-3
    moved[0, 0, 5, 5] = 1
    assert sizes(plain, moved, "patches", 2).tolist() == [2]
    assert sizes(plain, moved, "patches", 3).tolist() == [2]
    assert sizes(plain, moved, "patches", 1).tolist() == [3]


def test_a_convention_says_its_eps_in_pixels_and_is_held_to_no_law() -> None:
    """Our network divides by 0.5, so eps 0.2 of normalised pixels is 0.1 in pixels, and white pixels leave the box."""
    victim = target()
    data = right(victim)
    bright = data._replace(pixels=data.pixels.round())
    filled = fill(victim, bright, open_catalog().shift("paper_line_2023"), ("0.2",), accuracy(), 0, 500)
    (fact,) = filled.facts["severities"]
    assert fact["pixel_eps"] == pytest.approx(0.1)
    assert fact["valid"]
    assert fact["largest_perturbation"] == pytest.approx(0.1, abs=1e-6)
    assert fact["lowest_pixel"] < 0
    assert fact["highest_pixel"] > 1


def test_a_trust_cell_holds_facts_and_no_record() -> None:
    victim = target()
    data = right(victim)
    filled = fill_trust(victim, data, "linf", ("0.02", "0.1"), 12, 0, target(seed=8))
    assert filled.records == []
    assert filled.outcomes is None
    assert filled.facts["trust"]["n"] == 12
    assert filled.facts["trust"]["surrogate"]


def test_a_network_of_ones_own_is_examined_without_its_attention() -> None:
    torch.manual_seed(1)
    victim = ModelTarget(OwnNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 5)), 5))
    found = fill_trust(victim, right(victim), "l2", ("0.1", "0.4"), 12, 0, None).facts["trust"]["measured"]
    assert "not_applicable" in found["saturated_attention"]
    assert found["hidden_gradient"]["count"] == 0
    with pytest.raises(ValueError, match="attention"):
        fill(victim, right(victim), open_catalog().shift("attention_fool(steps=1)"), ("1",), accuracy(), 0, 500)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_two_smallest_perturbations_the_smaller_one_counts(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One face sees half of its gradient, and its way to the border is the longer one on most samples."""
    half, whole = build(SOFTMAX.core, {}, SHAPE, 3), build(SOFTMAX.core, {}, SHAPE, 3)
    plain = half.tokens
    columns = torch.arange(8) < 4
    monkeypatch.setattr(half, "tokens", lambda pixels: plain(torch.where(columns, pixels.detach(), pixels)))
    fmn = open_catalog().shift(f"fmn(norm={norm},steps=15)")
    eps = ("8",) if norm == "l2" else ("1",)
    data = right(ModelTarget(whole))
    faces = [fill(ModelTarget(face), data, fmn, eps, accuracy(), 0, 500).outcomes for face in (half, whole)]
    both = fill(ModelTarget(half, opened=ModelTarget(whole)), data, fmn, eps, accuracy(), 0, 500)
    one, other, found = (
        torch.tensor(table.column("norm").to_pylist()) for table in (*faces, both.outcomes) if table is not None
    )
    assert torch.equal(found, torch.minimum(one, other))
    assert (other < one).sum() > 12
    assert both.facts["taken_from_open"] == (other < one).sum()


def test_a_convention_climbs_the_cross_entropy_that_vanishes() -> None:
    """As cleverhans does: where float32 rounds the loss of the model's own answer to 0, the image stays as it is."""
    victim = target()
    with torch.no_grad():
        for scale, stands in ((1.0, False), (1e5, True)):
            head = victim.model.head
            head.weight.mul_(scale)
            data = right(victim)
            fgsm = open_catalog().shift("paper_line_2023(attack=fgsm)")
            (found,) = shifted(fgsm, data, ("0.2",), DRAW, victim).rungs
            with torch.enable_grad():
                pixels = data.pixels.clone().requires_grad_()
                loss = nn.functional.cross_entropy(victim(pixels, data.ids, DRAW), data.labels, reduction="sum")
                (slope,) = torch.autograd.grad(loss, pixels)
            assert isinstance(found, Tensor)
            assert torch.equal(found, data.pixels + 0.1 * slope.sign())
            assert bool((slope == 0).all()) == stands
