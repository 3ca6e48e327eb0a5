"""Attacks on patches, attention and tokens: known optima, promises that hold for every one, losses worked by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attnbench.attacks.adversarial.adversarial_patch import ADVERSARIAL_PATCH
from attnbench.attacks.adversarial.attention_fool import ATTENTION_FOOL, preference, pull, spread
from attnbench.attacks.adversarial.insight import insight
from attnbench.attacks.adversarial.look import SMALLEST_BATCH, Look
from attnbench.attacks.adversarial.objective import log_odds
from attnbench.attacks.adversarial.patch_fool import PATCH_FOOL, Plan, adam, agreeing, drawn_attention
from attnbench.attacks.adversarial.patch_place import Tiling, first, layer_logits
from attnbench.attacks.adversarial.region import around
from attnbench.attacks.adversarial.token_embedding import TOKEN_EMBEDDING, size
from attnbench.attacks.draw import Draw
from attnbench.attacks.glass import Glass, Inside, Steered
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift, severity_value

DRAW = Draw(0, "attack", "attack")
JUDGE = Draw(0, "attack", "judge")
TILES = Tiling(4, 4, 2)
COUNTS = ("1", "2", "4")
EPS = ("0.005", "0.02", "0.1")
QUICK = {"steps": 6, "relative_step": 0.3}
ATTACKS: dict[str, tuple[Shift, dict[str, Any], tuple[str, ...]]] = {
    "patch": (ADVERSARIAL_PATCH, QUICK, COUNTS),
    "patch, most attended": (ADVERSARIAL_PATCH, {**QUICK, "place": "attention"}, COUNTS),
    "patch, anywhere, twice": (ADVERSARIAL_PATCH, {**QUICK, "place": "random", "restarts": 2}, COUNTS),
    "patch fool": (PATCH_FOOL, {"steps": 6, "learning_rate": 0.3}, COUNTS),
    "attention fool": (ATTENTION_FOOL, QUICK, COUNTS),
    "attention fool, linf": (ATTENTION_FOOL, {**QUICK, "norm": "linf"}, EPS),
    "tokens": (TOKEN_EMBEDDING, {"steps": 6}, ("0.01", "0.1", "0.4")),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)
in_patches = pytest.mark.parametrize("name", [name for name in ATTACKS if ATTACKS[name][2] == COUNTS])


class Tiny:
    """A transformer of 2 layers and 2 heads on 16 patches of 2 x 2 pixels behind 8 prefix tokens, mean-pooled.

    All sizes are multiples of 8, for at others the last bits of a product depend on a sample's place in the batch.
    """

    deterministic = True
    layers = 2
    prefix_tokens = 8
    grid = (4, 4)
    classes = 5

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)

        def weight(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            return gain * torch.randn(rows, columns, generator=generator) / rows**0.5

        self.embed, self.prefix, self.places = weight(16, 16, 3), weight(8, 16), weight(16, 16, 2)
        self.blocks = [(weight(16, 48, 1.5), weight(16, 16, 1.5)) for _ in range(self.layers)]
        self.head = weight(16, 16, 3)
        self.shown: list[tuple[str, ...]] = []
        self.draws: list[Draw] = []

    def noise(self, logits: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        return logits

    def run(
        self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int = -1, delta: Tensor | None = None
    ) -> tuple[Inside, list[Tensor]]:
        assert len(ids) == len(pixels)
        self.shown.append(tuple(ids))
        self.draws.append(draw)
        patches = F.pad(TILES.cut(pixels - 0.5), (0, 4)) @ self.embed + self.places
        x = torch.cat([self.prefix.expand(len(pixels), 8, 16), patches], 1)
        attention, streams = [], []
        for i, (qkv, out) in enumerate(self.blocks):
            x = x + delta if i == layer and delta is not None else x
            streams.append(x)
            q, k, v = (F.layer_norm(x, (16,)) @ qkv).view(len(x), 24, 3, 2, 8).permute(2, 0, 3, 1, 4)
            attention.append(q @ k.transpose(2, 3) / 8**0.5)
            x = x + (attention[-1].softmax(-1) @ v).transpose(1, 2).flatten(2) @ out
        logits = (F.layer_norm(x[:, 8:], (16,)).mean(1) @ self.head)[:, : self.classes]
        return Inside(self.noise(logits, ids, draw), tuple(attention)), streams

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        return self.run(pixels, ids, draw)[0].logits

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        return self.run(pixels, ids, draw)[0]

    def stream(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int) -> Tensor:
        return self.run(pixels, ids, draw)[1][layer]

    def steered(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int, delta: Tensor) -> Tensor:
        return self.run(pixels, ids, draw, layer, delta)[0].logits


class Noisy(Tiny):
    """The same with noise on its logits."""

    deterministic = False

    def noise(self, logits: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        return logits + 0.3 * draw.normal(ids, (self.classes,))


class Flat:
    """Two classes, the second where w (x - 1/2) + b > 0; its one layer attends as it is told, whatever it is shown."""

    deterministic = True
    layers = 1
    prefix_tokens = 0
    grid = (4, 4)

    def __init__(self, weight: Tensor, offset: float, attention: Tensor | None = None) -> None:
        self.weight, self.offset = weight, offset
        self.keys = torch.zeros(16) if attention is None else attention

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        score = (pixels - 0.5).flatten(1) @ self.weight.flatten() + self.offset
        return torch.stack([torch.zeros_like(score), score], 1)

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        return Inside(self(pixels, ids, draw), (self.keys.expand(len(pixels), 1, 16, 16),))

    def stream(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int) -> Tensor:
        return TILES.cut(pixels)

    def steered(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int, delta: Tensor) -> Tensor:
        moved = (self.stream(pixels, ids, draw, layer) + delta - 0.5) * TILES.cut(self.weight)
        score = moved.sum((1, 2)) + self.offset
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def victim() -> Tiny:
    return Tiny()


@pytest.fixture(scope="module")
def images(victim: Tiny) -> Samples:
    """29 images of 3 x 8 x 8, of which the network gets the first 3 wrong."""
    pixels = torch.rand(29, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    ids = tuple(f"image-{i}" for i in range(29))
    labels = victim(pixels, ids, JUDGE).argmax(1)
    labels[:3] = (labels[:3] + 1) % 5
    return Samples(pixels, labels, ids)


@pytest.fixture(scope="module")
def outcomes(images: Samples, victim: Tiny) -> dict[str, tuple[Any, ...]]:
    """What each attack returns on its own severities."""
    return {name: run(name, images, victim) for name in ATTACKS}


def run(name: str, samples: Samples, target: Any, severities: Sequence[str] = (), **more: Any) -> tuple[Any, ...]:
    shift, given, ladder = ATTACKS[name]
    return shift.apply(samples, severities or ladder, DRAW, target, **{**shift.settings, **given, **more})


def tensors(found: tuple[Any, ...]) -> list[Tensor]:
    """Return what the attack chose: the pixels, or what it adds to the tokens."""
    return [one.delta if isinstance(one, Steered) else one for one in found]


def answers(target: Any, found: Any, samples: Samples) -> Tensor:
    if isinstance(found, Steered):
        logits: Tensor = target.steered(found.pixels, samples.ids, JUDGE, found.layer, found.delta)
        return logits
    return target(found, samples.ids, JUDGE)


def fooled(target: Any, found: tuple[Any, ...], samples: Samples) -> Tensor:
    """Return `[rung, sample]`."""
    return torch.stack([answers(target, one, samples).argmax(1) != samples.labels for one in found])


def changed(pixels: Tensor, clean: Tensor) -> Tensor:
    """Return `[sample, patch]`, whether any bit of a patch differs."""
    return (TILES.cut(pixels) != TILES.cut(clean)).any(2)


def flat_images(count: int = 11) -> Samples:
    pixels = 0.3 + 0.4 * torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Samples(pixels, torch.zeros(count, dtype=torch.long), tuple(map(str, range(count))))


def weights() -> Tensor:
    """Weights of both signs whose length falls from patch to patch in an order that is neither rising nor falling."""
    generator = torch.Generator().manual_seed(2)
    each = F.normalize(torch.randn(16, 4, generator=generator), dim=1) * torch.linspace(2, 1, 16)[:, None]
    order = torch.randperm(16, generator=generator)
    return each[order].view(4, 4, 2, 2).permute(0, 2, 1, 3).reshape(1, 1, 8, 8)


def optimum(weight: Tensor, pixels: Tensor, chosen: Tensor) -> Tensor:
    """Return the best images when the chosen patches are free: 1 where the weight is above 0, else 0."""
    return torch.where(TILES.spread(chosen), (weight > 0).float(), pixels)


EXACT = {
    "patch": ("saliency", {"steps": 40, "relative_step": 0.1}),
    "patch, corner": ("corner", {"steps": 40, "relative_step": 0.1, "place": "corner"}),
    "patch, most attended": ("attention", {"steps": 40, "relative_step": 0.1}),
    "patch fool": ("attention", {"steps": 60, "learning_rate": 0.05}),
    "attention fool": ("saliency", {"steps": 60, "relative_step": 0.1, "place": "saliency"}),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("count", [1, 3])
def test_a_linear_model_is_climbed_to_the_best_content_of_the_best_patches(name: str, count: int) -> None:
    """The optimum is a corner of the box; a model that it just fails to fool sees it, one that it just fools falls."""
    weight, samples = weights(), flat_images()
    attention = torch.linspace(-1, 1, 16)[torch.randperm(16, generator=torch.Generator().manual_seed(4))]
    ranks = {"saliency": TILES.cut(weight)[0].norm(dim=1), "attention": attention, "corner": -torch.arange(16.0)}
    place, settings = EXACT[name]
    chosen = ranks[place].argsort(descending=True)[:count].expand(11, count)
    best = optimum(weight, samples.pixels, chosen)
    scores = ((best.double() - 0.5) * weight).sum((1, 2, 3))
    one, peak = samples.rows([count]), scores[count].item()
    for slack, falls in ((-1e-3, False), (1e-3, True)):
        target = Flat(weight, slack - peak, attention)
        (pixels,) = run(name.removesuffix(", corner"), one, target, (str(count),), **settings)
        assert fooled(target, (pixels,), one).item() is falls
        assert falls or torch.equal(pixels, best[[count]])


def test_the_first_step_in_the_linf_ball_is_a_share_of_eps() -> None:
    weight, samples = weights(), flat_images()
    ball = around(samples.pixels, 0.1)
    (pixels,) = run("attention fool, linf", samples, Flat(weight, -100.0), ("0.1",), steps=1, relative_step=0.25)
    expected = ball.project(ball.start(samples, DRAW) + 0.025 * weight.sign())
    assert torch.allclose(pixels, expected, rtol=0, atol=1e-7)


@every_attack
def test_every_restart_begins_elsewhere(name: str) -> None:
    """Nothing fools this model, so the last point of the last restart comes back, one short step from its start."""
    once, twice = (
        run(name, flat_images(), Flat(weights(), -100.0), ATTACKS[name][2][-1:], steps=1, restarts=restarts, **short)
        for restarts in (1, 2)
        for short in [{"learning_rate" if name == "patch fool" else "relative_step": 0.01}]
    )
    assert all((one != other).flatten(1).any(1).all() for one, other in zip(tensors(once), tensors(twice), strict=True))


def test_tokens_of_a_linear_head_fall_at_their_distance() -> None:
    """The distance is -score / |w|, and a random start turns to within 10 degrees of w, as in L2 (`test_ascent`)."""
    weight, samples = weights(), flat_images(4)
    target = Flat(weight, -1.0)
    scores = ((samples.pixels.double() - 0.5) * weight).sum((1, 2, 3)) - 1
    wide = TILES.cut(samples.pixels).double()
    radii = -scores / weight.double().norm() / (wide - wide.mean(2, keepdim=True)).flatten(1).norm(dim=1)
    assert (radii > 0).all()
    for row, radius in enumerate(radii.tolist()):
        one = samples.rows([row])
        ladder = (f"{0.98 * radius:.9f}", f"{1.02 * radius:.9f}")
        found = TOKEN_EMBEDDING.apply(one, ladder, DRAW, target, **TOKEN_EMBEDDING.settings)
        assert fooled(target, found, one).flatten().tolist() == [False, True]


@in_patches
def test_no_more_patches_differ_than_were_asked_for(
    name: str, images: Samples, outcomes: dict[str, tuple[Any, ...]]
) -> None:
    for count, pixels in zip((1, 2, 4), outcomes[name], strict=True):
        assert (changed(pixels, images.pixels).sum(1) <= count).all()
        assert (changed(pixels, images.pixels)[3:].sum(1) >= 1).all()
        assert pixels.min() >= 0
        assert pixels.max() <= 1


@in_patches
def test_fewer_patches_lie_inside_more(name: str, images: Samples, outcomes: dict[str, tuple[Any, ...]]) -> None:
    if ATTACKS[name][1].get("restarts", 1) > 1:
        pytest.skip("each restart has its own patches")
    hits = [changed(pixels, images.pixels) for pixels in outcomes[name]]
    assert not (hits[0] & ~hits[1]).any()
    assert not (hits[1] & ~hits[2]).any()


def test_the_linf_ball_holds(images: Samples, outcomes: dict[str, tuple[Any, ...]]) -> None:
    for text, pixels in zip(EPS, outcomes["attention fool, linf"], strict=True):
        assert (pixels.double() - images.pixels.double()).abs().max() <= severity_value(text) + 2**-23
        assert pixels.min() >= 0
        assert pixels.max() <= 1
    clean = torch.tensor([0.0, 0.3, 1.0]).view(1, 1, 1, 3)
    assert torch.equal(around(clean, 0.0).project(torch.rand(1, 1, 1, 3)), clean)


def test_the_ball_of_tokens_holds(images: Samples, victim: Tiny) -> None:
    for layer in (0, 1, -1, -2):
        found = run("tokens", images, victim, layer=layer)
        wide = victim.stream(images.pixels, images.ids, JUDGE, layer).double()
        room = (wide - wide.mean(2, keepdim=True)).flatten(1).norm(dim=1)
        for text, one in zip(("0.01", "0.1", "0.4"), found, strict=True):
            assert one.layer == layer % 2
            assert torch.equal(one.pixels, images.pixels)
            lengths = one.delta.double().flatten(1).norm(dim=1)
            assert (lengths <= severity_value(text) * room * (1 + 1e-6)).all()
            assert (lengths[3:] > 0).all()


class Raised(Tiny):
    """The same function, written down with a number added to all coordinates of every token."""

    def __init__(self) -> None:
        super().__init__()
        self.places = self.places + 3.0
        self.prefix = self.prefix + 3.0


def test_a_number_added_to_all_coordinates_buys_no_room(images: Samples, victim: Tiny) -> None:
    """Layer norm takes it off: the logits are the same, and so must the budget be."""
    raised = Raised()
    assert torch.allclose(raised(images.pixels, images.ids, JUDGE), victim(images.pixels, images.ids, JUDGE), atol=1e-4)
    for layer in (0, 1):
        plain, moved = (t.stream(images.pixels, images.ids, JUDGE, layer) for t in (victim, raised))
        assert moved.norm() > 1.3 * plain.norm()
        assert torch.allclose(size(moved), size(plain), rtol=1e-5)
    for one, other in zip(run("tokens", images, victim), run("tokens", images, raised), strict=True):
        assert torch.allclose(one.delta.norm(dim=(1, 2)), other.delta.norm(dim=(1, 2)), rtol=1e-3)


@every_attack
def test_what_is_fooled_stays_fooled_by_the_same_choice(
    name: str, images: Samples, victim: Tiny, outcomes: dict[str, tuple[Any, ...]]
) -> None:
    found = outcomes[name]
    verdicts = fooled(victim, found, images)
    assert verdicts[-1].sum() > verdicts[0].sum() >= 3
    for i in range(2):
        assert verdicts[i + 1][verdicts[i]].all()
        assert torch.equal(tensors(found)[i + 1][verdicts[i]], tensors(found)[i][verdicts[i]])


@every_attack
def test_a_clean_mistake_is_left_alone(name: str, images: Samples, outcomes: dict[str, tuple[Any, ...]]) -> None:
    for one in outcomes[name]:
        untouched = torch.zeros(3, 24, 16) if isinstance(one, Steered) else images.pixels[:3]
        assert torch.equal(tensors((one,))[0][:3], untouched)


@every_attack
def test_fooled_samples_are_never_shown_again(name: str, images: Samples) -> None:
    """Six samples, three of which are wrong from the start; those are shown at most by the checks before the search."""
    target = Tiny()
    run(name, images.rows(range(6)), target)
    shown = [set(ids) for ids in target.shown]
    last = max(i for i, ids in enumerate(shown) if ids & {"image-0", "image-1", "image-2"})
    assert last <= 1
    assert len(shown) > 2


@every_attack
def test_a_sample_leaves_when_it_is_fooled(name: str, images: Samples) -> None:
    """One that is never fooled is shown at every step, one that is fooled before the end at fewer."""
    target = Tiny()
    found = run(name, images, target, {COUNTS: ("1",), EPS: ("0.02",)}.get(ATTACKS[name][2], ("0.04",)), restarts=1)
    shown = {i: sum(i in ids for ids in target.shown[1:]) for i in images.ids[3:]}
    verdicts = fooled(target, found, images)[0, 3:].tolist()
    standing = {shown[i] for i, falls in zip(shown, verdicts, strict=True) if not falls}
    assert len(standing) == 1
    assert min(shown[i] for i, falls in zip(shown, verdicts, strict=True) if falls) < standing.pop()


class Unsteady(Tiny):
    """Held to be stochastic, and remembers the odds of all it answered."""

    deterministic = False

    def noise(self, logits: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.answered: list[Tensor] = [*getattr(self, "answered", []), logits.detach()]
        return logits


@pytest.mark.parametrize("name", ["patch", "tokens"])
def test_the_most_harmful_point_is_kept_for_a_stochastic_model(name: str, images: Samples) -> None:
    """Steps too long lead up and down; of all points after the first, which may be the clean image, none is higher."""
    some, target = images.rows(range(3, 19)), Unsteady()
    (found,) = run(name, some, target, ATTACKS[name][2][-1:], passes=1, relative_step=0.9)
    walk = torch.stack([log_odds(logits, some.labels) for logits in target.answered[-7:] if len(logits) == 16])
    assert len(walk) == 7
    highest = log_odds(answers(target, found, some), some.labels)
    assert torch.allclose(highest, walk.amax(0), atol=1e-4)
    assert (walk[-1] < highest - 0.1).any()


@every_attack
def test_batches_and_order_change_nothing(
    name: str, images: Samples, victim: Tiny, outcomes: dict[str, tuple[Any, ...]]
) -> None:
    ladder = ATTACKS[name][2][:2]
    whole = tensors(outcomes[name])[:2]
    for width, rows in ((1, range(3, 4)), (11, range(29))):
        starts = range(0, len(rows), width)
        pieces = [tensors(run(name, images.rows(rows[i : i + width]), victim, ladder)) for i in starts]
        for all_, parts in zip(whole, zip(*pieces, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), all_[list(rows)])
    backwards = tensors(run(name, images.rows(range(28, -1, -1)), victim, ladder))
    assert all(torch.equal(one.flip(0), other) for one, other in zip(backwards, whole, strict=True))


@every_attack
def test_small_batches_are_filled_up(name: str, images: Samples) -> None:
    target = Tiny()
    run(name, images.rows([5, 6]), target)
    searched = target.shown[1:] if ATTACKS[name][0] is not TOKEN_EMBEDDING else target.shown
    assert {len(ids) for ids in searched} == {SMALLEST_BATCH}
    assert {i for ids in searched for i in ids} == {"image-5", "image-6"}


@every_attack
def test_global_state_neither_matters_nor_moves(
    name: str, images: Samples, victim: Tiny, outcomes: dict[str, tuple[Any, ...]]
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    pixels = images.pixels.clone()
    found = tensors(run(name, images, victim))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images.pixels, pixels)
    assert not any(one.requires_grad for one in found)
    assert all(map(torch.equal, tensors(outcomes[name]), found))


@every_attack
def test_severity_0_changes_nothing(name: str, images: Samples, victim: Tiny) -> None:
    (found,) = run(name, images, victim, ("0",))
    assert torch.equal(tensors((found,))[0], found.delta * 0 if isinstance(found, Steered) else images.pixels)


@pytest.mark.parametrize("name", ["patch", "patch, most attended", "patch fool", "attention fool"])
def test_an_attack_beats_random_content_of_the_same_patches(name: str, images: Samples, victim: Tiny) -> None:
    (pixels,) = run(name, images, victim, ("1",))
    where = changed(pixels, images.pixels).float().argmax(1, keepdim=True)
    mask = TILES.spread(where)
    noise = [Draw(i, "noise", "shift").uniform(images.ids, (3, 8, 8)) for i in range(10)]
    by_chance = torch.stack([fooled(victim, (torch.where(mask, one, images.pixels),), images)[0] for one in noise])
    assert fooled(victim, (pixels,), images)[0, 3:].sum() > by_chance[:, 3:].sum(1).max()


@every_attack
def test_a_stochastic_model_is_attacked_from_scratch_with_fresh_noise(name: str, images: Samples) -> None:
    """Every severity alone gives the same as all together, and within one the passes take the streams in order."""
    target = Noisy()
    some, ladder = images.rows(range(3, 12)), ATTACKS[name][2]
    together = tensors(run(name, some, target, ladder, passes=3, steps=4))
    numbered = [draw.repeat for draw in target.draws if draw.name == "model"]
    starts = [i for i, repeat in enumerate(numbered) if repeat == 0]
    assert len(starts) == 3
    for begin, end in zip(starts, [*starts[1:], len(numbered)], strict=True):
        assert numbered[begin:end] == list(range(end - begin))
        assert (end - begin) % 3 == 0
    alone = tensors(run(name, some, target, ladder[-1:], passes=3, steps=4))
    assert torch.equal(together[-1], alone[0])


@every_attack
def test_a_stochastic_model_is_fooled_on_fresh_noise(name: str, images: Samples) -> None:
    target = Noisy()
    rates = []
    for found in (None, run(name, images, target, ATTACKS[name][2][-1:], passes=4)[0]):
        judged = []
        for i in range(20):
            draw = JUDGE.at(i)
            if found is None:
                logits = target(images.pixels, images.ids, draw)
            elif isinstance(found, Steered):
                logits = target.steered(found.pixels, images.ids, draw, found.layer, found.delta)
            else:
                logits = target(found, images.ids, draw)
            judged.append((logits.argmax(1) != images.labels)[3:])
        rates.append(torch.stack(judged).double().mean().item())
    assert rates[1] > rates[0] + 0.2


@pytest.mark.parametrize("kind", [Tiny, Noisy])
def test_a_look_inside_sees_what_a_plain_look_sees(kind: type[Tiny], images: Samples) -> None:
    passes = 1 if kind.deterministic else 5
    plain = Look(kind(), DRAW, passes)(images, steepest=True)
    target = kind()
    view, (further,) = insight(Look(target, DRAW, passes), target, images, lambda inside: [inside.logits[:, 0]])
    assert plain.gradient is not None
    assert view.gradient is not None
    assert torch.equal(view.fooled, plain.fooled)
    assert torch.allclose(view.loss, plain.loss)
    assert torch.allclose(view.gradient, plain.gradient, rtol=1e-4, atol=1e-6)
    pixels = images.pixels.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Tiny()(pixels, images.ids, DRAW)[:, 0].sum(), pixels)
    assert torch.allclose(further, expected, atol=1e-5)


class Boaster(Flat):
    """Its pass inside claims the wrong class, its plain one never does."""

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        return super().inside(pixels, ids, draw)._replace(logits=self(pixels, ids, draw).flip(1))


def test_what_only_the_look_inside_takes_for_fooled_is_searched_on() -> None:
    weight, samples = weights(), flat_images(3)
    target = Boaster(-weight, -100.0)
    (pixels,) = run("attention fool", samples, target, ("1",), steps=60, relative_step=0.1)
    chosen = first(TILES.cut(weight)[:, :, 0] * 0 + TILES.cut(weight).norm(dim=2), 1).expand(3, 1)
    assert torch.equal(pixels, optimum(weight, samples.pixels, chosen))


LOGITS = torch.tensor([[[[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]], [[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]]]])
"""One sample, two heads, two queries, three keys; the second head attends to all keys alike."""


def test_the_pull_is_the_smooth_maximum_of_what_the_paper_averages() -> None:
    """Towards key 2 the first head's mean is (6 + 0) / 2 = 3, less 12 / 6 = 2; the second's 5 / 2, less 15 / 6.

    Variances of the queries' logits: (4 + 1 + 9) / 3 and (1 + 4 + 1) / 3 in the first head, 0 in the second.
    """
    towards = torch.tensor([[2]])
    assert preference(LOGITS, towards).tolist() == [[1.0, 0.0]]
    assert preference(LOGITS, torch.tensor([[1, 2]])).tolist() == [[(6 + 2 + 3 + 0) / 4 - 2, 0.0]]
    assert spread(LOGITS).tolist()[0] == pytest.approx([((14 / 3 + 6 / 3) / 2) ** 0.5, 1.0])
    inside = Inside(torch.zeros(1, 2), (LOGITS, None, 2 * LOGITS))
    units = torch.tensor([[1.0, 1.0, 4.0, 1.0]], dtype=torch.float64)
    assert pull(inside, towards, units).item() == pytest.approx(math.log(math.e + 1 + math.exp(0.5) + 1))
    shifted = Inside(inside.logits, (LOGITS + torch.tensor([7.0, -3.0])[:, None], None, 2 * LOGITS))
    assert pull(shifted, towards, units).item() == pytest.approx(pull(inside, towards, units).item())


def test_drawn_attention_is_the_mean_logarithm_of_the_heads_mean() -> None:
    first_head, second_head = LOGITS[0].double().softmax(-1)
    means = (first_head[:, 2] + second_head[:, 2]) / 2
    assert drawn_attention(LOGITS, torch.tensor([[2]])).item() == pytest.approx(means.log().mean().item())
    assert drawn_attention(LOGITS, torch.tensor([[0, 1, 2]])).item() == pytest.approx(0.0, abs=1e-6)
    far = (1000.0 * LOGITS[:, :1]).requires_grad_()
    drawn_attention(far, torch.tensor([[0]])).sum().backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()
    assert far.grad[0, 0, :, 0].all()


def test_agreeing_gradients_keep_no_part_against_the_leading_one() -> None:
    def image(*numbers: float) -> Tensor:
        return torch.tensor(numbers).view(1, 1, 1, -1)

    leading = image(0.0, 4.0)
    assert agreeing(image(3.0, -2.0), leading).flatten().tolist() == [3.0, 0.0]
    assert agreeing(image(3.0, 2.0), leading).flatten().tolist() == [3.0, 2.0]
    assert agreeing(image(3.0, -2.0), image(0.0, 0.0)).flatten().tolist() == [3.0, -2.0]


def test_steps_of_adam_are_those_of_torch() -> None:
    """With what torch adds to the root set to nothing; the rows that left stay where their memory was."""
    generator = torch.Generator().manual_seed(5)
    slopes = torch.randn(25, 3, 1, 2, 2, generator=generator)
    plan = Plan(TILES, Flat(weights(), 0.0), 0, 25, 0.05, 0.95, 0.0)
    stride = adam(slopes[0].shape, slopes, plan)
    ours = torch.zeros(3, 1, 2, 2)
    theirs = torch.zeros(3, 1, 2, 2, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.05, eps=1e-30, maximize=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.95)
    for step, slope in enumerate(slopes):
        rows = torch.tensor([0, 2]) if step > 12 else torch.arange(3)
        ours[rows] += stride(step, rows, slope[rows])
        theirs.grad = slope.clone()
        optimizer.step()
        schedule.step()
    assert torch.allclose(ours[[0, 2]], theirs.detach()[[0, 2]], atol=1e-6)


class Attending(Flat):
    """Attention to a patch grows with its brightness; the class hangs on other patches than the one attended to."""

    layers = 2
    prefix_tokens = 3

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        logits = F.pad(4 * TILES.cut(pixels).mean(2) + self.keys, (3, 0), value=1.0)
        return Inside(self(pixels, ids, draw), (None, logits[:, None, None].expand(-1, 2, 19, -1)))


@pytest.mark.parametrize("name", ["patch fool", "attention fool"])
def test_attention_is_drawn_where_the_class_has_no_say(name: str) -> None:
    """Nothing but the attention moves the chosen patch, and it is drawn most where all of it is 1."""
    keys = torch.zeros(16).scatter(0, torch.tensor([6]), 8.0)
    weight = weights().masked_fill(TILES.spread(torch.tensor([[6]])), 0.0)
    samples = flat_images(3)
    target = Attending(weight, -100.0, keys)
    given = {"steps": 40, **({"place": "attention"} if name == "attention fool" else {})}
    (pixels,) = run(name, samples, target, ("1",), **given)
    spot = TILES.spread(torch.tensor([[6]] * 3))
    assert torch.equal(pixels, samples.pixels.masked_fill(spot, 1.0))
    (still,) = run(name, samples, target, ("1",), **{**given, "attention_weight": 0.0})
    assert (still[spot] < 1).any()


def test_layers_are_found_from_either_end() -> None:
    attention = tuple(None if i in (1, 3) else torch.full((1, 1, 1, 1), float(i)) for i in range(4))
    inside = Inside(torch.zeros(1, 2), attention)
    picked = {layer: layer_logits(inside, layer).item() for layer in (-1, -2, -3, -4, 0, 1, 2, 9)}
    assert picked == {-1: 2.0, -2: 2.0, -3: 0.0, -4: 0.0, 0: 0.0, 1: 0.0, 2: 2.0, 9: 2.0}
    with pytest.raises(ValueError, match="no layer up to layer 0"):
        layer_logits(inside._replace(attention=(None, *attention[1:])), 0)


def test_tiles_cut_and_spread_alike() -> None:
    pixels = torch.arange(128.0).view(1, 2, 8, 8)
    patch = TILES.cut(pixels)[0, 6]
    assert patch.tolist() == [20, 21, 28, 29, 84, 85, 92, 93]
    mask = TILES.spread(torch.tensor([[6]]))
    assert pixels[mask.expand_as(pixels)].tolist() == patch.tolist()
    assert isinstance(Tiny(), Glass)


class Blind(Tiny):
    """Its attention is no softmax of anything."""

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        return super().inside(pixels, ids, draw)._replace(attention=(None, None))


class Masked(Tiny):
    """Hides a key from a query."""

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        shown = super().inside(pixels, ids, draw)
        assert shown.attention[0] is not None
        hidden = shown.attention[0].clone()
        hidden[:, :, 0, 1] = -torch.inf
        return shown._replace(attention=(hidden, shown.attention[1]))


def test_mistakes_are_named(images: Samples, victim: Tiny, target: Any) -> None:
    with pytest.raises(ValueError, match="attention_fool needs logits of attention, and no layer of this Blind"):
        run("attention fool", images, Blind())
    with pytest.raises(ValueError, match="patch_fool needs logits"):
        run("patch fool", images, Blind())
    run("patch", images, Blind(), ("1",))
    with pytest.raises(ValueError, match="those of layer 0 are not"):
        run("patch fool", images, Masked())
    for name in ("patch fool", "attention fool", "tokens", "patch, most attended"):
        with pytest.raises(ValueError, match="look into, got Deterministic"):
            run(name, images, target)
        with pytest.raises(ValueError, match="look into, got NoneType"):
            run(name, images, None)
    with pytest.raises(ValueError, match="needs the model"):
        run("patch", images, None)
    for text in ("1.5", "1/2", "17"):
        with pytest.raises(ValueError, match="whole number of patches from 0 to 16"):
            run("patch", images, victim, (text,))
    with pytest.raises(ValueError, match="do not tile"):
        run("patch", images, victim, patch=3)
    with pytest.raises(ValueError, match=r"the model's is 4 x 4; set patch=2"):
        run("patch fool", images, victim, patch=4)
    with pytest.raises(ValueError, match="unknown place 'centre'"):
        run("patch", images, victim, place="centre")
    with pytest.raises(ValueError, match="unknown norm 'l2' for attention_fool"):
        run("attention fool", images, victim, norm="l2")
    with pytest.raises(ValueError, match=r"below 1, got 1\.0"):
        run("attention fool", images, victim, momentum=1.0)
    with pytest.raises(ValueError, match="2 blocks, 0 to 1, got layer 2"):
        run("tokens", images, victim, layer=2)
    with pytest.raises(ValueError, match="occurs twice"):
        run("tokens", images.rows([4, 4]), victim)
    for name in ATTACKS:
        with pytest.raises(ValueError, match="steps=0"):
            run(name, images, victim, steps=0)
        with pytest.raises(ValueError, match="rise"):
            run(name, images, victim, ATTACKS[name][2][::-1])
        with pytest.raises(ValueError, match="at least one sample"):
            run(name, images.rows([]), victim)
