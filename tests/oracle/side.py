"""Our attacks and those of other libraries, each called the same way and given the same number of passes."""

import importlib.util
import math
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torchattacks
from torch import Tensor, nn

from attnbench.attacks.adversarial.apgd_ce import APGD_CE
from attnbench.attacks.adversarial.apgd_dlr import APGD_DLR
from attnbench.attacks.adversarial.apgd_t import APGD_T
from attnbench.attacks.adversarial.autoattack import AUTOATTACK
from attnbench.attacks.adversarial.fab_t import FAB_T
from attnbench.attacks.adversarial.fmn import FMN, fmn_approaches
from attnbench.attacks.adversarial.minimum_norm import smallest
from attnbench.attacks.adversarial.square import SQUARE
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Setting, Shift
from attnbench.attacks.target import ModuleTarget

from .contest import Attack

SEED = 0
"""Of every generator that a library or the harness seeds."""
TITLES = {"linf": "Linf", "l2": "L2"}
ORDERS = {"linf": math.inf, "l2": 2.0}
BISECTIONS = 16
"""Looks that our minimum-norm attacks spend on the way back to the border, where the others spend none."""
SHORT = 0.03
"""First step of FMN. In L2 that of its authors, 1, is too long for images of 8 x 8; .3, .1 and .01 find less too."""
OWN = Draw(SEED, "attack", "attack")


class Budget(NamedTuple):
    """What every attack may spend."""

    steps: int
    """Of each walk; one step of APGD or FMN is a pass forward and one back, one of FAB two forward and one back."""
    targets: int
    """Wrong classes that targeted attacks walk towards."""
    queries: int
    """Of Square."""


OFFICIAL = Budget(100, 9, 5000)
"""That of AutoAttack's authors."""


class Global(Draw):
    """Numbers of torch's global generator, in the order in which they are asked for: the same starts as the others'."""

    def uniform(self, ids: Sequence[str], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return torch.rand(len(ids), *shape)

    def normal(self, ids: Sequence[str], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return torch.randn(len(ids), *shape)


@contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's global generator inside, and put it back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def ours(budget: Budget) -> dict[str, Attack]:
    """Return our attacks, with no more passes than their rivals take; AutoAttack knows the official budget alone."""
    steps, same = budget.steps, Global(SEED, "attack", "attack")
    return {
        "apgd_ce": shifted(APGD_CE, same, steps=steps),
        "apgd_dlr": shifted(APGD_DLR, same, steps=steps),
        "apgd_t": shifted(APGD_T, same, steps=steps, targets=budget.targets),
        "fab_t": shifted(FAB_T, OWN, steps=steps - math.ceil(BISECTIONS / 3), targets=budget.targets),
        "fmn": shifted(FMN, OWN, steps=fmn_steps(budget)),
        "square": shifted(SQUARE, OWN, queries=budget.queries),
    } | ({"autoattack": shifted(AUTOATTACK, OWN)} if budget == OFFICIAL else {})


def fmn_steps(budget: Budget) -> int:
    """Return our steps of two passes: the bisection, and at the first step a pass each way for eight more borders."""
    return budget.steps - BISECTIONS // 2 - 9


def our_smallest(budget: Budget) -> Attack:
    """Return our FMN, told no eps."""

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        approaches = fmn_approaches(norm, fmn_steps(budget), 1)
        return smallest(samples, OWN, ModuleTarget(network), approaches, norm, 1).pixels

    return attack


def shifted(shift: Shift, draw: Draw, **given: Setting) -> Attack:
    """Return one of our shifts as an attack."""

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        settings = {**shift.settings, "norm": norm, **given}
        with seeded():
            (points,) = shift.apply(samples, (str(eps),), draw, ModuleTarget(network), **settings)
        return points

    return attack


def rivals(budget: Budget) -> dict[str, dict[str, Attack]]:
    """Return the attacks of others, by the name of ours and of their library."""
    steps, adv_lib = budget.steps, adv_lib_attacks()
    apgd_ce, apgd_dlr = (ported("APGD", steps=steps, n_restarts=1, loss=loss) for loss in ("ce", "dlr"))
    apgd_t = ported("APGDT", steps=steps, n_restarts=1, n_classes=budget.targets + 1)
    fab_t = ported("FAB", steps=steps, n_restarts=1, n_classes=budget.targets + 1, multi_targeted=True)
    square = ported("Square", n_queries=budget.queries, resc_schedule=False)
    return {
        "apgd_ce": {"adv-lib": bounded(adv_lib.apgd, n_iter=steps, loss_function="ce"), "torchattacks": apgd_ce},
        "apgd_dlr": {"adv-lib": bounded(adv_lib.apgd, n_iter=steps, loss_function="dlr"), "torchattacks": apgd_dlr},
        "apgd_t": {
            "adv-lib": bounded(adv_lib.apgd_targeted, n_iter=steps, num_targets=budget.targets),
            "torchattacks": apgd_t,
        },
        "fab_t": {"torchattacks": fab_t},
        "fmn": {
            "adv-lib": minimal(adv_lib.fmn, steps=steps),
            "adv-lib, short steps": minimal(adv_lib.fmn, steps=steps, α_init=SHORT),
            "foolbox": foolbox_fmn(steps),
            "foolbox, short steps": foolbox_fmn(steps, max_stepsize=SHORT),
        },
        "square": {"torchattacks": square},
        "autoattack": {"torchattacks": in_turn(apgd_ce, apgd_t, fab_t, square)} | authors_autoattack(),
    }


def references(norm: str, budget: Budget) -> dict[str, Attack]:
    """Return other attacks that look for the smallest perturbation: none of ours is made after them."""
    adv_lib, steps = adv_lib_attacks(), budget.steps
    if norm != "l2":
        return {}
    return {
        "DDN": lambda network, some, eps, norm: adv_lib.ddn(network, some.pixels, some.labels, steps=steps),
        "ALMA": lambda network, some, eps, norm: adv_lib.alma(
            network, some.pixels, some.labels, num_steps=steps, distance="l2"
        ),
    }


def ported(name: str, **given: Any) -> Attack:
    """Return an attack of torchattacks, which seeds torch's global generator at every call."""

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        kind = getattr(torchattacks, name)
        with seeded():
            points: Tensor = kind(network, norm=TITLES[norm], eps=eps, seed=SEED, **given)(
                samples.pixels, samples.labels
            )
        return points.detach()

    return attack


def bounded(function: Callable[..., Tensor], **given: Any) -> Attack:
    """Return a function of adv-lib that is told eps."""

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        with seeded():
            return function(network, samples.pixels, samples.labels, eps=eps, norm=ORDERS[norm], **given)

    return attack


def minimal(function: Callable[..., Tensor], **given: Any) -> Attack:
    """Return a function of adv-lib that looks for the smallest perturbation."""

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        return function(network, samples.pixels, samples.labels, norm=ORDERS[norm], **given)

    return attack


def foolbox_fmn(steps: int, **given: Any) -> Attack:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        kind = foolbox.attacks.LInfFMNAttack if norm == "linf" else foolbox.attacks.L2FMNAttack
        model = foolbox.PyTorchModel(network, bounds=(0, 1))
        points: Tensor = kind(steps=steps, **given)(model, samples.pixels, samples.labels, epsilons=None)[0]
        return points

    return attack


def in_turn(*attacks: Attack) -> Attack:
    """Return a sequence: each attack gets the samples that those before left standing."""

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        points, standing = samples.pixels.clone(), torch.arange(len(samples.ids))
        for one in attacks:
            if not len(standing):
                break
            left = samples.rows(standing)
            points[standing] = one(network, left, eps, norm)
            standing = standing[network(points[standing]).argmax(1) == left.labels]
        return points

    return attack


def adv_lib_attacks() -> Any:
    """Return adv-lib's attacks, whose package imports visdom, which it needs for pictures alone, and distutils."""
    missing = "visdom" not in sys.modules
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from adv_lib import attacks
    if missing:
        del sys.modules["visdom"]
    return attacks


def authors_autoattack() -> dict[str, Attack]:
    """Return the authors' own code where the package `pyautoattack` is installed."""
    if importlib.util.find_spec("pyautoattack") is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyautoattack import AutoAttack

    def attack(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        whole = AutoAttack(network, eps=eps, norm=TITLES[norm], seed=SEED, version="standard")
        with seeded():
            points: Tensor = whole.run_standard_evaluation(samples.pixels, samples.labels, batch_size=len(samples.ids))[
                0
            ]
        return points

    return {"authors' code": attack}
