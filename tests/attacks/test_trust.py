"""Every gate of the trust report is raised by a model made to raise it, and none by an honest one."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnbench.attacks.draw import Draw
from attnbench.attacks.glass import Inside
from attnbench.attacks.samples import Samples
from attnbench.attacks.target import ModuleTarget
from attnbench.attacks.trust.attention import rows
from attnbench.attacks.trust.derivative import COARSE, FINE
from attnbench.attacks.trust.evidence import evidence
from attnbench.attacks.trust.trial import Settings
from attnbench.reports.gate import Gate
from attnbench.reports.trust import gates, verdict

DRAW = Draw(0, "trust", "attack")
CHEAP = Settings(steps=6, relative_step=0.5, queries=40, draws=12, directions=2, passes=2, judge_passes=3)
LADDER = ("0.1", "0.2")
TERMS: dict[str, Any] = {"norm": "linf", "ladder": LADDER, "draw": DRAW, "settings": CHEAP}
FOREIGN = "saturated_cross_entropy"


@lru_cache
def facts(name: str) -> dict[str, Any]:
    """Examine a model of the tables below."""
    case = {**CASES, **HONEST}[name]
    given: dict[str, Any] = {"samples": SAMPLES, **TERMS, **case.terms}
    for role in ("opened", "surrogate"):
        if role in given:
            given[role] = given[role]()
    found = evidence(case.target(), given.pop("samples"), **given)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def named(found: dict[str, Any]) -> dict[str, Gate]:
    return {gate.name: gate for gate in gates(found)}


def blobs(count: int, seed: int) -> Samples:
    """Noisy copies of four patterns of 16 grey pixels."""
    generator = torch.Generator().manual_seed(seed)
    patterns = 0.35 + 0.3 * (torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5)
    labels = torch.randint(4, (count,), generator=generator)
    noise = 0.08 * torch.randn(count, 1, 4, 4, generator=generator)
    return Samples((patterns[labels] + noise).clamp(0, 1), labels, tuple(f"blob-{i}" for i in range(count)))


SAMPLES = blobs(56, seed=2)


@lru_cache
@torch.enable_grad()
def honest() -> nn.Module:
    """A small network that was trained."""
    torch.set_num_threads(1)
    train, generator = blobs(256, seed=1), torch.Generator().manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    for _ in range(200):
        loss = F.cross_entropy(network(train.pixels), train.labels)
        slopes = torch.autograd.grad(loss, tuple(network.parameters()))
        for parameter, slope in zip(network.parameters(), slopes, strict=True):
            parameter.data -= 0.5 * slope
    return network.eval().requires_grad_(False)


class Victim:
    """Logits from pixels, the sample's clean image and its label, all of which a bad defence may know."""

    deterministic = True

    def __init__(self, logits: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.logits, self.place = logits, {name: i for i, name in enumerate(SAMPLES.ids)}
        self.passes = self.gradients = 0

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.passes += 1
        self.gradients += pixels.requires_grad
        index = [self.place[name] for name in ids]
        return self.logits(pixels, SAMPLES.pixels[index], SAMPLES.labels[index])


def plain(change: Callable[[Tensor], Tensor]) -> Victim:
    """A network that reads changed pixels."""
    return Victim(lambda pixels, clean, labels: honest()(change(pixels)))


def lying(sign: Callable[[Tensor], Tensor]) -> Victim:
    """The honest network with its gradient multiplied by a number that depends on the perturbation."""

    def logits(pixels: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = honest()(pixels)
        factor = sign((pixels - clean).detach()).to(found)[:, None]
        return found.detach() + factor * (found - found.detach())

    return Victim(logits)


def moved_up(delta: Tensor) -> Tensor:
    return torch.where(delta[:, 0, 0, 0] > 0, 1, -1)


def farther(delta: Tensor, eps: float) -> Tensor:
    return torch.where(delta.abs().amax((1, 2, 3)) > eps, -1, 1)


def one_pixel_shut(pixels: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """Which side a start moved the first pixel to, where no gradient reaches it, decides whether gradients lie."""
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[0, 0] = True
    return lying(moved_up).logits(torch.where(corner, pixels.detach(), pixels), clean, labels)


def shell(pixels: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """Fooled in a shell around the clean image, which every walk leaves for good; sure of itself elsewhere."""
    distance = (pixels - clean).detach().abs().mean((1, 2, 3))
    inside = (distance > 0.07) & (distance < 0.15)
    height = torch.where(inside, -50.0, 50.0)
    return honest()(pixels) + height[:, None] * F.one_hot(labels, 4)


def junk_gradient(pixels: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """The honest function with another network's gradient."""
    stray = pixels.flatten(1) @ torch.randn(16, 4, generator=torch.Generator().manual_seed(3))
    return honest()(pixels.detach()) + stray - stray.detach()


def optimising(pixels: Tensor) -> Tensor:
    """A defence that follows a gradient of its own before it looks."""
    with torch.enable_grad():
        held = pixels.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(honest()(held).logsumexp(1).sum(), held)
    return pixels + 1e-3 * gradient


class Noisy(Victim):
    """Logits with noise of the sample's own, and gradients that the noise may turn round."""

    deterministic = False

    def __init__(self, turned: bool) -> None:
        super().__init__(lambda pixels, clean, labels: honest()(pixels))
        self.turned = turned

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        logits = super().__call__(pixels, ids, draw)
        sign = draw.named("sign").normal(ids, (1,)).sign() if self.turned else 1.0
        return logits.detach() + sign * (logits - logits.detach()) + 0.3 * draw.normal(ids, (4,))


class Seen(Victim):
    """A model with one layer of attention whose logits are stretched."""

    layers, prefix_tokens, grid = 2, 0, (2, 2)

    def __init__(self, stretch: float) -> None:
        super().__init__(lambda pixels, clean, labels: honest()(pixels))
        self.stretch = stretch

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        tokens = pixels.flatten(1).unflatten(1, (1, 4, 4))
        return Inside(self(pixels, ids, draw), (self.stretch * tokens @ tokens.transpose(2, 3), None))

    def stream(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int) -> Tensor:
        raise NotImplementedError

    def steered(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int, delta: Tensor) -> Tensor:
        raise NotImplementedError


class Case(NamedTuple):
    """A model, and the gates it has to raise."""

    target: Callable[[], Any]
    raised: dict[str, str]
    terms: Mapping[str, Any] = MappingProxyType({})


def wrong() -> Samples:
    """Samples that the honest network gets wrong, of which nothing but the flags is measured."""
    return SAMPLES._replace(labels=(honest()(SAMPLES.pixels).argmax(1) + 1) % 4)


def own() -> ModuleTarget:
    return ModuleTarget(honest())


def constant() -> Victim:
    return Victim(lambda pixels, clean, labels: F.one_hot(labels, 4) + 0 * pixels.sum((1, 2, 3))[:, None])


UNATTACKED = {"samples": wrong()}
CASES: dict[str, Case] = {
    "quantised input": Case(
        lambda: plain(lambda x: (x * 16).round() / 16),
        {"zero_gradient": "broken", "black_box_stronger": "suspect|broken"},
    ),
    "clipped logits": Case(
        lambda: Victim(lambda x, clean, y: (4 * honest()(x)).clamp(-3, 3)), {"zero_gradient": "suspect|broken"}
    ),
    "shattered input": Case(
        lambda: plain(lambda x: x + 0.05 * (3000 * x).sin()), {"unstable_predictions": "suspect|broken"}
    ),
    "no path to the pixels": Case(
        lambda: plain(lambda x: x.detach()), {"interrupted_graph": "broken", "zero_gradient": "broken"}
    ),
    "a detached path": Case(
        lambda: Victim(junk_gradient),
        {"opened_twin_stronger": "suspect", "hidden_gradient": "suspect"},
        {"opened": own},
    ),
    "a twin that is another function": Case(
        lambda: Victim(lambda x, clean, y: honest()(x) + 30 * F.one_hot(y, 4)),
        {"transfer_failure": "suspect"},
        {"opened": own},
    ),
    "probabilities": Case(
        lambda: Victim(lambda x, clean, y: honest()(x).softmax(1)), {"probabilities": "suspect"}, UNATTACKED
    ),
    "noise that is not declared": Case(
        lambda: Victim(lambda x, clean, y: honest()(x) + torch.randn(len(x), 4)),
        {"undeclared_randomness": "broken"},
        UNATTACKED,
    ),
    "statistics of the batch": Case(
        lambda: plain(lambda x: F.batch_norm(x, None, None, training=True) * 0.15 + 0.5),
        {"batch_dependence": "broken"},
        UNATTACKED,
    ),
    "a gradient in the forward pass": Case(lambda: plain(optimising), {"dynamic": "suspect"}, UNATTACKED),
    "a shell that walks leave": Case(lambda: Victim(shell), {"silent_success": "suspect"}, {"ladder": ("0.2",)}),
    "a step too small": Case(
        own,
        {"incomplete_optimisation": "suspect", "steps_matter": "suspect"},
        {"settings": CHEAP._replace(relative_step=0.04)},
    ),
    "a constant": Case(constant, {"unbounded_attack_fails": "broken", "zero_gradient": "suspect"}),
    "a gradient that points back": Case(
        lambda: lying(lambda delta: -torch.ones(len(delta))),
        {
            "black_box_stronger": "broken",
            "noise_stronger": "suspect|broken",
            "transfer_stronger": "suspect",
            "hidden_gradient": "suspect",
            "unbounded_attack_fails": "suspect|broken",
        },
        {"surrogate": own, "settings": CHEAP._replace(queries=150)},
    ),
    "a gradient that lies off the image": Case(
        lambda: lying(lambda delta: farther(delta, 0)), {"single_step_stronger": "suspect"}
    ),
    "a gradient that lies far from the image": Case(
        lambda: lying(lambda delta: farther(delta, 0.1001)), {"larger_eps_weaker": "suspect"}
    ),
    "a gradient that dies off the image": Case(
        lambda: lying(lambda delta: farther(delta, 0) > 0), {"stuck_walk": "suspect"}
    ),
    "a gradient that the start decides": Case(lambda: Victim(one_pixel_shut), {"restarts_matter": "suspect"}),
    "a gradient that noise turns round": Case(lambda: Noisy(turned=True), {"unsteady_gradient": "suspect"}),
    "attention to one token": Case(lambda: Seen(1e4), {"saturated_attention": "suspect"}, UNATTACKED),
}
HONEST: dict[str, Case] = {
    "linf": Case(own, {}, {"surrogate": lambda: plain(lambda x: x + 0.01), "opened": own}),
    "l2": Case(own, {}, {"norm": "l2", "ladder": ("0.2", "0.4"), "settings": CHEAP._replace(steps=10)}),
    "declared noise": Case(lambda: Noisy(turned=False), {}),
    "visible attention": Case(lambda: Seen(1.0), {}, UNATTACKED),
}


@pytest.mark.parametrize("name", CASES)
def test_each_gate_is_raised_by_a_model_made_for_it(name: str) -> None:
    found = named(facts(name))
    words = {gate: found[gate].verdict for gate in CASES[name].raised}
    assert all(words[gate] in wanted.split("|") for gate, wanted in CASES[name].raised.items()), [
        found[gate] for gate in words
    ]


def test_every_gate_has_such_a_model() -> None:
    raised = {gate for case in CASES.values() for gate in case.raised}
    assert raised | {FOREIGN, "few_classes"} == set(named({"measured": {}}))


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_raises_none(name: str) -> None:
    found = gates(facts(name))
    assert verdict(found, foreign=True) == ("trusted", ())


def test_large_logits_mislead_the_plain_cross_entropy_and_not_us() -> None:
    """Of two classes, log-odds are the difference of the logits: times a power of 2, a walk takes the same steps."""

    def halves(pixels: Tensor, scale: float) -> Tensor:
        score = honest()(pixels)[:, :2].logsumexp(1) - honest()(pixels)[:, 2:].logsumexp(1)
        return scale * torch.stack([score, -score], 1)

    two = SAMPLES._replace(labels=SAMPLES.labels // 2)
    small, large = (
        evidence(Victim(lambda x, clean, y, scale=scale: halves(x, scale)), two, **TERMS) for scale in (1.0, 2.0**13)
    )
    found = gates(large)
    assert verdict(found) == ("trusted", ())
    assert verdict(found, foreign=True).word == "suspect"
    assert large["measured"][FOREIGN]["count"] > 28
    assert large["measured"]["zero_gradient"]["count"] == 0
    assert large["measured"]["curve"] == small["measured"]["curve"]


def test_two_classes_leave_no_dlr_loss() -> None:
    two = SAMPLES._replace(labels=SAMPLES.labels % 2)
    target = Victim(lambda x, clean, y: honest()(x).unflatten(1, (2, 2)).logsumexp(1))
    found = named(evidence(target, two, **TERMS))
    assert found["few_classes"].verdict == "not applicable"
    assert "2 classes" in found["few_classes"].reason


def test_half_of_a_slope_is_seen_to_be_missing() -> None:
    """One pixel decides, and half of what it does is detached: every slope is off by half of itself."""

    def logits(pixels: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
        score = pixels[:, 0, 1, 2] / 2 + pixels[:, 0, 1, 2].detach() / 2 + 1
        return torch.stack([score, torch.zeros_like(score)], 1)

    samples = SAMPLES._replace(labels=torch.zeros(56, dtype=torch.long))
    found = evidence(Victim(logits), samples, **TERMS)["measured"]["hidden_gradient"]
    assert found["median_error"] == pytest.approx(0.5, abs=1e-3)
    assert (found["count"], found["n"], found["float64"]) == (56, 56, True)
    assert found["steps"] == list(FINE)


def rounded(pixels: Tensor) -> Tensor:
    """Pixels rounded to 8 bits, with the gradient of what was not rounded."""
    return pixels + ((255 * pixels).round() / 255 - pixels).detach()


def test_a_missing_slope_is_seen_through_the_rounding_of_pixels_and_of_half_precision() -> None:
    """Fine steps see the rounding alone; coarse ones accuse the network that detaches, and no other."""

    def network(detached: bool, half: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def logits(pixels: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
            seen = pixels.bfloat16().float() if half else rounded(pixels)
            found: Tensor = honest()(seen.detach() if detached else seen) + honest()(seen)
            return found.bfloat16() if half else found

        return logits

    for half in (False, True):
        for detached in (False, True):
            found = evidence(Victim(network(detached, half)), SAMPLES, **TERMS)["measured"]["hidden_gradient"]
            assert found["steps"] == list(COARSE)
            assert found["n"] > 50
            assert (found["count"] > 30) if detached else (found["count"] == 0), (half, detached, found)


def test_a_slope_that_rounding_hides_altogether_is_not_said_to_be_right() -> None:
    found = evidence(plain(lambda x: x + ((11 * x).round() / 11 - x).detach()), SAMPLES, **TERMS)
    assert "cannot be measured" in found["measured"]["hidden_gradient"]["not_applicable"]


def test_the_caller_s_inference_mode_changes_nothing() -> None:
    with torch.inference_mode():
        found = evidence(ModuleTarget(honest()), SAMPLES, **TERMS)
    assert found == evidence(ModuleTarget(honest()), SAMPLES, **TERMS)
    assert found["measured"]["interrupted_graph"]["count"] == 0


def test_saturated_rows_are_counted_by_hand() -> None:
    """Gaps of 20, 0 and infinity: e^-20 lies below 2^-24, equal logits far above, and a lone key says nothing."""
    blind = -torch.inf
    logits = torch.tensor([[20.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, blind, blind]])[None, None]
    share, spread = rows(logits)
    assert share.item() == 0.5
    assert spread.item() == pytest.approx((20 * 2**0.5 / 3) / 2)


def test_facts_do_not_depend_on_the_order_or_on_global_state() -> None:
    first = facts("declared noise")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert evidence(Noisy(turned=False), SAMPLES.rows(range(55, -1, -1)), **TERMS) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_settings_keep_to_their_budget() -> None:
    """128 samples of a constant, which is never fooled, so that nothing ends early; of three targets together.

    Each square and each random point is one pass, so all but one of them need not be run.
    """
    many = Samples(SAMPLES.pixels[[0] * 128], SAMPLES.labels[[0] * 128], (SAMPLES.ids[0],) * 128)
    targets = [constant(), constant(), constant()]
    ladder, usual = ("0.01", "0.02", "0.05", "0.1", "0.15", "0.2"), Settings()
    terms = {"norm": "linf", "ladder": ladder, "draw": DRAW, "settings": usual._replace(queries=1, draws=1)}
    evidence(targets[0], many, opened=targets[1], surrogate=targets[2], **terms)
    gradients = sum(target.gradients for target in targets)
    assert 250 < gradients <= 300
    left = usual.queries + usual.draws - 2
    assert 1600 < sum(target.passes for target in targets) - gradients + left <= 2000


def test_a_model_that_is_always_wrong_is_not_attacked() -> None:
    found = evidence(own(), wrong(), **TERMS)
    assert (found["right"], found["eps"]) == (0, None)
    assert set(found["measured"]) == set(facts("linf")["measured"])
    assert named(found)["black_box_stronger"].reason == "the model gets no sample right"
    assert verdict(gates(found)).word == "trusted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l7"}, "unknown norm 'l7'"),
        ({"ladder": ("0",)}, "an eps above 0"),
        ({"ladder": ("0.2", "0.1")}, "must be at least 0 and rise"),
        ({"settings": CHEAP._replace(restarts=1)}, "restarts at least 2"),
    ],
)
def test_terms_without_meaning_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evidence(own(), SAMPLES, **{**TERMS, **change})


def test_every_gate_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
    for gate in gates({"measured": {}}):
        assert f"### `{gate.name}`" in page
    for name in ("eps_zero_differs", "black_box_cell_stronger", "single_step_cell_stronger", "curve_ends_early"):
        assert f"### `{name}`" in page
