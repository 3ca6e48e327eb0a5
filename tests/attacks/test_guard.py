"""What attacks refuse, in words, and what they leave alone: the caller's modes, a model and every random state."""

import random
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnbench.attacks.adversarial.fgsm import FGSM
from attnbench.attacks.adversarial.ladder import Found, laddered
from attnbench.attacks.adversarial.look import Look
from attnbench.attacks.adversarial.pgd import PGD
from attnbench.attacks.adversarial.random_noise import RANDOM_NOISE
from attnbench.attacks.adversarial.spsa import SPSA
from attnbench.attacks.adversarial.square import SQUARE
from attnbench.attacks.adversarial.torchattacks import torchattacks_shift
from attnbench.attacks.draw import Draw
from attnbench.attacks.guard import NoGradient, admitted, check_logits, check_samples
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift
from attnbench.attacks.target import ModuleTarget

DRAW = Draw(0, "attack", "attack")
NATIVE: dict[str, tuple[Shift, dict[str, Any]]] = {
    "fgsm": (FGSM, {}),
    "pgd linf": (PGD, {"steps": 3}),
    "pgd l2": (PGD, {"steps": 3, "norm": "l2"}),
    "square linf": (SQUARE, {"queries": 8}),
    "square l2": (SQUARE, {"queries": 8, "norm": "l2"}),
    "spsa": (SPSA, {"steps": 2, "pairs": 3}),
    "random_noise": (RANDOM_NOISE, {"draws": 8}),
}
FOREIGN: dict[str, tuple[Shift, dict[str, Any]]] = {
    name: (torchattacks_shift(name), {"arguments": arguments})
    for name, arguments in (("PGD", "steps=4"), ("APGD", "steps=4"), ("Square", "n_queries=8"), ("CW", "steps=4"))
}
native = pytest.mark.parametrize("name", NATIVE)
every_attack = pytest.mark.parametrize("name", [*NATIVE, *FOREIGN])


def run(name: str, samples: Samples, target: Any, eps: str = "0.03") -> Tensor:
    shift, given = {**NATIVE, **FOREIGN}[name]
    eps = "unbounded" if shift.severities == ("unbounded",) else eps
    pixels: Tensor = shift.apply(samples, (eps,), DRAW, target, **{**shift.settings, **given})[0]
    return pixels


def excess(name: str, pixels: Tensor, clean: Tensor, eps: float) -> float:
    """Return by how much the longest perturbation passes eps, in float64."""
    delta = (pixels.double() - clean.double()).flatten(1)
    size = delta.norm(dim=1) if name.endswith("l2") else delta.abs().amax(1)
    return float(size.max()) - eps


class Steps(nn.Module):
    """A network with parts of its own modes, flags and gradients, which fails at a chosen call."""

    def __init__(self, fails_at: int = 10**9) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.GELU(), nn.Flatten(), nn.Dropout(), nn.Linear(240, 5)
            )
        self.layers[0].weight.requires_grad_(False)
        self.layers[5].weight.grad = torch.full((5, 240), 0.25)
        self.calls, self.fails_at = 0, fails_at
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            random.random(), torch.rand(1), np.random.rand()
            raise MemoryError("no room")
        logits: Tensor = self.layers(pixels)
        return logits


def state(module: nn.Module) -> list[Any]:
    """Return everything that an attack could leave behind, but for Python's generator, which type checking uses."""
    return [
        [(name, part.training) for name, part in module.named_modules()],
        [(p.requires_grad, p.dtype, p.tolist(), p.grad is None or p.grad.tolist()) for p in module.parameters()],
        [(name, b.tolist()) for name, b in module.named_buffers()],
        torch.get_rng_state().tolist(),
        repr(np.random.get_state()),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    ]


def judged(samples: Samples, module: nn.Module) -> Samples:
    """Return the samples with the model's own answers as labels, so that attacks have something to do."""
    with torch.no_grad():
        return samples._replace(labels=module(samples.pixels).argmax(1))


@every_attack
@pytest.mark.parametrize("call", [1, 4])
def test_a_failing_model_is_left_as_it_was_found(name: str, call: int, samples: Samples) -> None:
    module = Steps()
    some = judged(samples.rows(range(9)), module)
    module.calls, module.fails_at = 0, call
    before = state(module)
    with pytest.raises((MemoryError, RuntimeError), match="no room"):
        run(name, some, ModuleTarget(module, deterministic=name in FOREIGN))
    assert state(module) == before


@every_attack
def test_a_model_is_left_as_it_was_found(name: str, samples: Samples) -> None:
    module = Steps()
    some = judged(samples.rows(range(9)), module)
    before = state(module)
    pixels = run(name, some, ModuleTarget(module))
    assert state(module) == before
    assert not pixels.requires_grad
    assert module.calls > 1


@pytest.mark.parametrize("name", ["pgd linf", "square linf", "PGD"])
def test_python_s_generator_is_put_back_too(name: str, samples: Samples) -> None:
    """Type checking draws from it as well, but as often beside a model that draws as beside one that does not."""
    some, ends = samples.rows(range(4, 13)), []
    for draws in (0, 3):

        class Rolling(nn.Module):
            calls = 0

            def forward(self, pixels: Tensor, draws: int = draws) -> Tensor:
                for _ in range(draws):
                    random.random()
                self.calls += 1
                if self.calls == 4:
                    raise MemoryError("no room")
                return pixels.flatten(1)[:, :5]

        random.seed(1)
        with pytest.raises((MemoryError, RuntimeError), match="no room"):
            run(name, some, ModuleTarget(Rolling().eval(), deterministic=name in FOREIGN))
        ends.append(random.getstate())
    assert ends[0] == ends[1]


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_gradient_mode_changes_nothing(
    name: str, mode: Callable[[], Any], samples: Samples, target: Any
) -> None:
    module = Steps()
    some = judged(samples.rows(range(9)), module)
    expected = run(name, some, ModuleTarget(module))
    with mode():
        made_inside = Samples(some.pixels.clone(), some.labels.clone(), some.ids)
        assert torch.equal(run(name, some, ModuleTarget(module)), expected)
        assert torch.equal(run(name, made_inside, type(target)(module)), expected)
    assert torch.equal(run(name, made_inside, ModuleTarget(module)), expected)


@native
def test_a_model_built_in_inference_mode_is_attacked_like_another(name: str, samples: Samples) -> None:
    some = judged(samples.rows(range(9)), Steps())
    with torch.inference_mode():
        module = Steps()
        inside = run(name, some, ModuleTarget(module))
    expected = run(name, some, ModuleTarget(Steps()))
    assert torch.equal(inside, expected)
    assert torch.equal(run(name, some, ModuleTarget(module)), expected)


def test_a_look_takes_gradients_in_inference_mode(samples: Samples, target: Any) -> None:
    expected = Look(target, DRAW)(samples, steepest=True)
    with torch.inference_mode():
        inside = Look(target, DRAW)(samples.rows(range(37)), steepest=True)
    assert expected.gradient is not None
    assert inside.gradient is not None
    assert torch.equal(inside.gradient, expected.gradient)
    assert expected.gradient.abs().max() > 0


def test_a_search_may_take_gradients_of_its_own(samples: Samples, target: Any) -> None:
    def search(some: Samples, eps: float, draw: Draw, look: Look) -> Found:
        pixels = some.pixels.requires_grad_()
        right = look.target(pixels, some.ids, draw).gather(1, some.labels[:, None])
        (gradient,) = torch.autograd.grad(right.sum(), pixels)
        return Found(gradient, some.labels > 9, gradient[:, 0, 0, 0])

    outside = laddered(samples, ("0.1",), DRAW, target, [search], 1)
    with torch.inference_mode():
        inside = laddered(samples.rows(range(37)), ("0.1",), DRAW, target, [search], 1)
    assert torch.equal(inside[0], outside[0])
    assert not torch.equal(inside[0], samples.pixels)


@native
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_gets_no_larger_ball(name: str, kind: torch.dtype, samples: Samples) -> None:
    module = Steps().to(kind)
    with torch.no_grad():
        some = samples._replace(labels=module(samples.pixels.to(kind)).argmax(1))
    pixels = run(name, some, ModuleTarget(module))
    assert pixels.dtype == torch.float32
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    assert -0.01 < excess(name, pixels, some.pixels, 0.03) <= 2**-23
    assert {p.dtype for p in module.parameters()} == {kind}


@native
def test_autocast_gets_no_larger_ball(name: str, samples: Samples, target: Any) -> None:
    module = Steps()
    some = judged(samples, module)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(some.pixels).dtype == torch.bfloat16
        for attacked in (ModuleTarget(module), type(target)(module)):
            pixels = run(name, some, attacked)
            assert pixels.dtype == torch.float32
            assert -0.01 < excess(name, pixels, some.pixels, 0.03) <= 2**-23


@every_attack
def test_pixels_in_half_precision_are_the_centre_of_the_ball(name: str, samples: Samples) -> None:
    module = Steps()
    some = judged(samples._replace(pixels=samples.pixels.bfloat16().float()), module)
    given = some._replace(pixels=some.pixels.bfloat16())
    pixels = run(name, given, ModuleTarget(module))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, run(name, some, ModuleTarget(module)))
    if name != "CW":
        assert -0.01 < excess(name, pixels, some.pixels, 0.03) <= 2**-23


@pytest.mark.parametrize("change", ["byte", "flat", "bright", "dark", "nan", "empty"])
def test_no_images(change: str, samples: Samples, target: Any) -> None:
    pixels = samples.pixels.clone()
    pixels[2, 0, 0, 0] = {"bright": 1 + 2**-23, "dark": -1.5, "nan": torch.nan}.get(change, 0.5)
    wrong, words = {
        "byte": ((255 * pixels).byte(), r"floating-point .*got torch.uint8 \[37, 3, 5, 7\]; divide bytes by 255"),
        "flat": (pixels[:, 0], r"got torch.float32 \[37, 5, 7\].*add the axes"),
        "bright": (pixels, r"must lie in \[0, 1\], got .* to 1; give raw pixels.*clamp what a resize left outside"),
        "dark": (pixels, r"must lie in \[0, 1\], got -1\.5 to .*normalise inside the model"),
        "nan": (pixels, "1 of 37 images have some that are not finite; look at how they were loaded"),
        "empty": (pixels[:, :, :0], r"must have pixels, got \[37, 3, 0, 7\]"),
    }[change]  # fmt: skip
    for name in ("fgsm", "square linf", "PGD"):
        with pytest.raises(ValueError, match=words):
            run(name, samples._replace(pixels=wrong), target)
    assert target.shown == []


def test_no_classes(samples: Samples, target: Any) -> None:
    def refused(labels: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            run("fgsm", samples._replace(labels=labels), target)

    refused(samples.labels.float(), "whole numbers from 0, got torch.float32.*index of its true class")
    refused(samples.labels == 1, "got torch.bool")
    refused(samples.labels - 1, "got torch.int64 from -1")
    refused(samples.labels + 3, "classes of the model, 0 to 4, got 5; number them")
    refused(samples.labels[:, None], r"labels \[37, 1\] and 37 ids; give labels \[batch\]")
    refused(samples.labels[:7], r"labels \[7\] and 37 ids")
    refused(samples.labels.tolist(), "must be tensors, got Tensor and list; .*torch.as_tensor")
    with pytest.raises(ValueError, match="2 ids"):
        check_samples(samples._replace(ids=("a", "b")))
    for kind in (torch.int32, torch.uint8):
        assert torch.equal(
            run("pgd linf", samples._replace(labels=samples.labels.to(kind)), target), run("pgd linf", samples, target)
        )


def test_no_logits(samples: Samples, attackable: Any) -> None:
    answers: dict[str, Callable[[Tensor], Any]] = {
        "got a SimpleNamespace with .logits instead; wrap it": lambda x: SimpleNamespace(logits=x.flatten(1)),
        "got a dict with .logits instead": lambda x: {"logits": x.flatten(1)},
        "got a tuple instead": lambda x: (x.flatten(1),),
        r"got torch.float32 \[37\] for 37 images; .*one row of logits": lambda x: x.sum((1, 2, 3)),
        r"got torch.float32 \[38, 5\] for 37 images": lambda x: torch.ones(38, 5),
        r"got torch.int64 \[37, 5\]": lambda x: torch.ones(37, 5, dtype=torch.long),
        r"at least 2 classes to confuse, the model has 1; .*\[0, z\]": lambda x: x.sum((1, 2, 3))[:, None],
    }
    for words, answer in answers.items():
        for name in ("fgsm", "random_noise"):
            with pytest.raises(ValueError, match=words):
                run(name, samples, attackable(answer))

    def hole(pixels: Tensor) -> Tensor:
        logits = pixels.flatten(1)[:, :5].clone()
        logits[3:5, 1] = torch.inf
        return logits

    with pytest.raises(ArithmeticError, match=r"not finite for 2 of 37 images; .*large negative number"):
        run("pgd linf", samples, attackable(hole))
    check_logits(torch.zeros(2, 2, dtype=torch.float16), torch.tensor([0, 1]))


def test_a_wrapper_s_answer_passes_through_a_module_target(samples: Samples) -> None:
    class Wrapped(nn.Module):
        def forward(self, pixels: Tensor) -> Any:
            return SimpleNamespace(logits=pixels.flatten(1))

    with pytest.raises(ValueError, match=r"SimpleNamespace with \.logits"):
        run("fgsm", samples, ModuleTarget(Wrapped().eval()))


def test_training_mode_is_refused_when_given_and_when_called(samples: Samples) -> None:
    module = Steps()
    target = ModuleTarget(module)
    module.layers[4].train()
    with pytest.raises(
        ValueError, match=r"Steps must be in eval mode, but layers\.4 is in training mode; call .eval()"
    ):
        ModuleTarget(module)
    with pytest.raises(ValueError, match=r"layers\.4 is in training mode"):
        run("fgsm", samples, target)
    with pytest.raises(ValueError, match="Steps must be in eval mode, but it is in training mode"):
        ModuleTarget(module.train())


def test_admitted_samples_are_copies(samples: Samples) -> None:
    copy = admitted(samples)
    assert torch.equal(copy.pixels, samples.pixels)
    copy.pixels.zero_()
    copy.labels.zero_()
    assert samples.pixels.max() > 0.9
    assert samples.labels.max() == 2


class Noisy(nn.Module):
    """A linear model that draws from the global generators whenever it is called."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits = pixels.flatten(1)[:, :5]
        return logits + torch.rand_like(logits) + np.random.rand() + random.random()


def test_a_stochastic_module_draws_from_streams_of_its_own(samples: Samples) -> None:
    target = ModuleTarget(Noisy().eval(), deterministic=False)
    assert not target.deterministic
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state().tolist(), repr(np.random.get_state())
    first = target(samples.pixels, samples.ids, DRAW)
    assert (torch.get_rng_state().tolist(), repr(np.random.get_state())) == before
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(target(samples.pixels, samples.ids, DRAW), first)
    others = (DRAW.at(1), DRAW.named("x"), DRAW._replace(purpose="judge"), DRAW._replace(noise_seed=1))
    answers = [first, *(target(samples.pixels, samples.ids, other) for other in others)]
    assert len({answer.sum().item() for answer in answers}) == 5
    noise = torch.stack([answer - samples.pixels.flatten(1)[:, :5] for answer in answers])
    assert noise.std() > 0.2


def test_a_stochastic_module_is_attacked_on_fresh_noise_at_every_pass(samples: Samples) -> None:
    seen: list[Tensor] = []

    class Remembering(Noisy):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            seen.append((logits - pixels.flatten(1)[:, :5]).detach())
            return logits

    run("pgd linf", samples, ModuleTarget(Remembering().eval(), deterministic=False))
    assert len(seen) == 8 * 4
    assert len({round(noise[0, 0].item(), 4) for noise in seen}) == 32


def test_parameters_are_frozen_without_being_touched(samples: Samples) -> None:
    module = Steps()
    pixels = samples.pixels.clone().requires_grad_()
    logits = ModuleTarget(module)(pixels, samples.ids, DRAW)
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    direct = samples.pixels.clone().requires_grad_()
    assert torch.equal(module(direct), logits)
    assert module.layers[0].bias.grad is None
    assert torch.equal(module.layers[5].weight.grad, torch.full((5, 240), 0.25))
    assert module.layers[5].weight.requires_grad


def test_an_attack_on_a_model_without_gradients_says_so(samples: Samples, network: nn.Module) -> None:
    class Cut(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return network(pixels).detach()

    with pytest.warns(NoGradient, match="stands still"):
        run("pgd linf", samples, ModuleTarget(Cut().eval()))


@pytest.mark.parametrize("name", ["fgsm", "pgd linf", "pgd l2"])
def test_a_gradient_that_is_no_number_is_an_error(name: str, samples: Samples, network: nn.Module) -> None:
    """The root of a black pixel has no slope, and the model hides what comes of it."""

    class Root(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return network(pixels.sqrt()).nan_to_num()

    target = ModuleTarget(Root().eval())
    dark = samples._replace(pixels=samples.pixels.clone())
    dark.pixels[6:9, :, 0, 0] = 0
    dark = dark._replace(labels=target(dark.pixels, dark.ids, DRAW).argmax(1))
    with pytest.raises(ArithmeticError, match=r"gradient .* is not finite for \d+ of 37 images; .* square"):
        run(name, dark, target)


def test_severities_that_are_none_are_named(samples: Samples, target: Any) -> None:
    for text in ("abc", "8 / 255px", "8/0"):
        with pytest.raises(ValueError, match=f"a severity is a number or a fraction .* got '{text}'"):
            run("fgsm", samples, target, text)
    with pytest.raises(ValueError, match=r"several texts, as in \('8/255',\), got one alone"):
        FGSM.apply(samples, "8/255", DRAW, target, **FGSM.settings)


def test_a_bare_module_is_told_how_to_become_a_target() -> None:
    """In a process of its own: here the types of arguments are checked first."""
    code = (
        "import torch; from attnbench.attacks.adversarial.ladder import given\n"
        "try: given(torch.nn.Identity(), 1)\n"
        "except ValueError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "this Identity does not; wrap a module as attnbench.attacks.target.ModuleTarget(module)" in said
