"""The door to torchattacks: what it offers, what it must not leak, and what it refuses."""

import inspect
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attnbench.attacks.adversarial.foreign import FOREIGN
from attnbench.attacks.adversarial.isolation import isolated, parsed
from attnbench.attacks.adversarial.torchattacks import torchattacks_shift
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples

DRAW = Draw(0, "torchattacks", "attack")
ATTACKS = {
    "FGSM": "",
    "PGD": "steps=3",
    "PGDL2": "steps=3",
    "MIFGSM": "steps=3,decay=0.5",
    "APGD": "steps=5, loss='dlr'",
    "APGDT": "steps=3",
    "Square": "n_queries=20",
    "CW": "steps=5,lr=0.1",
}
BUDGETS = {
    "SPSA": ("nb_iter=1", "nb_iter=2"),
    "JSMA": ("gamma=0.01", "gamma=0.02"),
    "EADL1": ("max_iterations=10", "max_iterations=20"),
    "EADEN": ("max_iterations=10", "max_iterations=20"),
    "PIFGSM": ("num_iter_set=2", "num_iter_set=3"),
    "PIFGSMPP": ("num_iter_set=2", "num_iter_set=3"),
    "Pixle": tuple(f"restarts={n},max_iterations=2,x_dimensions=(1,3),y_dimensions=(1,3)" for n in (1, 2)),
    "SparseFool": ("steps=1", "steps=2"),
    "Square": ("n_queries=5", "n_queries=9"),
}
"""A budget and a larger one, where they are not 2 and 3 steps."""
ONE_STEP = ("VANILA", "GN", "FGSM", "FFGSM")
FIXED = {"AutoAttack": "version='rand'"}
"""Takes no number of steps at all: hence the warning; this is its shortest version."""


def run(name: str, samples: Samples, target: Any, severities: Sequence[str] = (), **given: Any) -> tuple[Tensor, ...]:
    shift = torchattacks_shift(name)
    return shift.apply(samples, severities or shift.severities[-2:], DRAW, target, **{**shift.settings, **given})


def states() -> tuple[Any, ...]:
    """Leave out Python's own generator, which the type checker of the tests draws from."""
    return torch.get_rng_state().tolist(), repr(np.random.get_state())


def test_the_table_is_what_the_library_offers() -> None:
    assert set(FOREIGN) == set(torchattacks.__all__) - set(torchattacks.__wrapper__)
    for name, row in FOREIGN.items():
        takes = inspect.signature(getattr(torchattacks, name)).parameters
        assert row.eps == next((key for key in ("eps", "max_epsilon") if key in takes), ""), name
        assert bool(row.relative_step) == ("alpha" in takes), name
        assert (row.classes, row.seed) == ("n_classes" in takes, "seed" in takes), name
        assert (len(row.norms) > 1) == ("norm" in takes), name
        assert (row.norms == ("none",)) == (not row.eps), name


def test_naming_an_attack_needs_neither_torchattacks_nor_its_runner() -> None:
    code = (
        "import sys; from attnbench.attacks.adversarial.torchattacks import torchattacks_shift\n"
        "torchattacks_shift('torchattacks:PGD')\n"
        "assert not {'torchattacks', 'attnbench.attacks.adversarial.isolation'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_declaration_is_sound(name: str) -> None:
    shift = torchattacks_shift(f"torchattacks:{name}")
    assert shift.name == f"torchattacks:{name}"
    assert shift.chunk_coupled
    assert shift.needs_target
    assert (shift.severities == ("unbounded",)) == (shift.norm == "none") == (not shift.ladder)
    assert shift.settings.get("norm", shift.norm) == shift.norm


def test_autoattack_says_that_it_is_not_autoattack() -> None:
    assert "Not AutoAttack" in torchattacks_shift("AutoAttack").warning


@pytest.mark.parametrize("name", ATTACKS)
def test_global_state_neither_matters_nor_moves(name: str, samples: Samples, target: Any) -> None:
    torch.manual_seed(1)
    before = states()
    first = run(name, samples, target, arguments=ATTACKS[name], chunk=19)
    assert states() == before
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    for again, pixels in zip(run(name, samples, target, arguments=ATTACKS[name], chunk=19), first, strict=True):
        assert torch.equal(again, pixels)
        assert pixels.shape == samples.pixels.shape
        assert not pixels.requires_grad
        assert pixels.min() >= 0
        assert pixels.max() <= 1
    assert (target.network(first[-1]).argmax(1) != samples.labels).sum() > 4


class Colours:
    """Ten classes of square colour images, which all attacks can handle; counts the images that it is shown."""

    deterministic = True

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.weights = [torch.randn(*shape, generator=generator) / shape[0] ** 0.5 for shape in ((507, 16), (16, 10))]
        pixels = torch.rand(4, 3, 13, 13, generator=generator)
        self.shown = 0
        self.samples = Samples(pixels, self(pixels).argmax(1), ("a", "b", "c", "d"))

    def __call__(self, pixels: Tensor, *given: Any) -> Tensor:
        self.shown += len(pixels)
        return (pixels.flatten(1) @ self.weights[0]).relu() @ self.weights[1]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_every_attack_works_and_takes_its_budget(name: str) -> None:
    """A larger budget shows the network more images: the eps fools nobody, so that none is left out early."""
    victim, shift = Colours(), torchattacks_shift(name)
    pixels = victim.samples.pixels
    if name in FIXED or name in ONE_STEP:
        budgets: Sequence[str] = (FIXED.get(name, ""),)
    else:
        budgets = BUDGETS.get(name, ("steps=2", "steps=3"))
    counts = []
    for arguments in budgets:
        victim.shown = 0
        severities = ("unbounded",) if shift.norm == "none" else ("0.01",)
        (moved,) = run(name, victim.samples, victim, severities, arguments=arguments)
        counts.append(victim.shown)
        assert moved.shape == pixels.shape
        assert 0 <= moved.min() <= moved.max() <= 1
        size = (moved.double() - pixels.double()).flatten(1)
        if shift.norm != "none":
            assert (size.abs().amax(1) if shift.norm == "linf" else size.norm(dim=1)).max() <= 0.01 + 2**-23
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("name", ["PGD", "EOTPGD"])
def test_a_stochastic_model_shows_fresh_noise_at_every_look_to_every_row(name: str, samples: Samples) -> None:
    """And the outcome is a function of the stream: the noise alone decides it here."""

    class Coin:
        deterministic = False

        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
            noise = draw.normal(ids, (5,)).to(pixels)
            self.seen.append(noise)
            return noise * pixels.flatten(1).sum(1, keepdim=True)

    (one, first), (other, second) = ((coin, run(name, samples, coin, ("0.1",))[0]) for coin in (Coin(), Coin()))
    shown = torch.cat(one.seen)
    assert len(shown.unique(dim=0)) == len(shown) >= 10 * len(samples.ids)
    assert torch.equal(shown, torch.cat(other.seen))
    assert torch.equal(first, second)


def test_it_runs_the_attack_itself(samples: Samples, target: Any) -> None:
    (pixels,) = run("FGSM", samples, target, ("8/255",))
    assert torch.equal(pixels, torchattacks.FGSM(target.network, eps=8 / 255)(samples.pixels, samples.labels))
    (pixels,) = run("BIM", samples, target, ("0.1",), relative_step=0.5, arguments="steps=3")
    direct = torchattacks.BIM(target.network, eps=0.1, alpha=0.05, steps=3)
    assert torch.equal(pixels, direct(samples.pixels, samples.labels))


def test_the_random_start_follows_chunk_and_noise_seed_but_not_eps(samples: Samples, target: Any) -> None:
    twice = Samples(
        samples.pixels[:5].repeat(2, 1, 1, 1), samples.labels[:5].repeat(2), tuple(f"copy-{i}" for i in range(10))
    )
    shift = torchattacks_shift("PGDRS")
    given = {**shift.settings, "chunk": 5, "arguments": "steps=2"}
    ladder = shift.apply(twice, ("0.05", "0.1"), DRAW, target, **given)
    (alone,) = shift.apply(twice, ("0.1",), DRAW, target, **given)
    (other,) = shift.apply(twice, ("0.1",), DRAW._replace(noise_seed=1), target, **given)
    assert torch.equal(ladder[1], alone)
    assert not torch.equal(alone[:5], alone[5:])
    assert not torch.equal(alone, other)


def test_norms_and_classes_are_passed_on(samples: Samples, target: Any) -> None:
    (pixels,) = run("APGDT", samples, target, ("0.5",), norm="l2", arguments="steps=3")
    lengths = (pixels - samples.pixels).double().flatten(1).norm(dim=1)
    assert 0.4 < lengths.max() < 0.5001


def test_state_is_put_back_after_a_failure(samples: Samples, attackable: Any) -> None:
    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            random.random(), torch.rand(1), np.random.rand()
            raise MemoryError("no room")

    before = states()
    with pytest.raises(RuntimeError, match="torchattacks:PGD failed: MemoryError: no room"):
        run("PGD", samples, attackable(Broken()))
    assert states() == before


def test_the_network_keeps_its_mode(samples: Samples, network: nn.Module, attackable: Any) -> None:
    network.train()
    run("FGSM", samples, attackable(network))
    assert network.training


def test_isolation_is_seeded_and_puts_everything_back() -> None:
    drawn, before = [], (*states(), random.getstate())
    for _ in range(2):
        with isolated(5):
            drawn.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))
    assert drawn[0] == drawn[1]
    assert (*states(), random.getstate()) == before


def test_arguments_are_literals() -> None:
    assert parsed("") == {}
    assert parsed("steps=20,decay=1.0, loss='ce', random_start=False, pair=(1, 2)") == {
        "steps": 20,
        "decay": 1.0,
        "loss": "ce",
        "random_start": False,
        "pair": (1, 2),
    }
    for wrong in ("20", "steps", "steps=open('x')", "**{}", "steps=1)", "steps=1;decay=2"):
        with pytest.raises(ValueError, match=r"must read like steps=20,decay=1\.0"):
            parsed(wrong)
    with pytest.raises(ValueError, match="arguments cannot set eps, norm"):
        parsed("eps=1,norm='L2'")


def test_mistakes_are_named(samples: Samples, target: Any) -> None:
    with pytest.raises(ValueError, match=r"no attack 'pdg'; did you mean torchattacks:PGD\?"):
        torchattacks_shift("torchattacks:pdg")
    with pytest.raises(ValueError, match=r"no severity '0\.1'; give unbounded"):
        run("CW", samples, target, ("0.1",))
    with pytest.raises(ValueError, match="no severity 'unbounded'; give an eps"):
        run("PGD", samples, target, ("unbounded",))
    with pytest.raises(ValueError, match="no norm 'l2'; choose from linf"):
        run("PGD", samples, target, norm="l2")
    with pytest.raises(ValueError, match="takes no step size"):
        run("FGSM", samples, target, relative_step=0.5)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        run("FGSM", samples, target, chunk=0)
    with pytest.raises(ValueError, match="needs a model"):
        run("FGSM", samples, None)
    with pytest.raises(RuntimeError, match=r"torchattacks:PGD failed: TypeError.*wings"):
        run("PGD", samples, target, arguments="wings=2")


@pytest.mark.parametrize("name", ["PGD", "PGDL2", "FGSM"])
def test_at_eps_0_nothing_runs(name: str, samples: Samples, target: Any) -> None:
    assert torch.equal(run(name, samples, target, ("0",))[0], samples.pixels)
