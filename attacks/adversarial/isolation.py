"""A foreign attack runs in fixed chunks, and its global randomness and its exceptions stay inside.

It draws for a whole batch at once, from global generators that it resets at will, so that one sample's outcome depends
on the others of its chunk: the chunks are fixed, and each is seeded for itself.
"""

import ast
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..draw import Draw
from ..guard import admitted
from ..samples import Samples, Target
from ..shift import severity_value
from .foreign import PREFIX, UNBOUNDED, Foreign, foreign


def attacked(
    name: str,
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    chunk: int,
    arguments: str,
    relative_step: float = 0.0,
    norm: str = "",
) -> tuple[Tensor, ...]:
    """Return what an attack of torchattacks makes of the samples at each severity, in float32.

    The samples are cut, in their order, into chunks of one random stream each, which depends on the chunk's index and
    not on the severity; at eps 0 nothing runs. A stochastic model shows the attack fresh noise at every look, which
    only some attacks average over. `arguments` are further ones of the class, such as `steps=20,decay=1.0`. Raises
    ValueError for what the attack cannot do and for samples that are no images, RuntimeError where it fails.
    """
    name, row = foreign(name)
    if target is None or not samples.ids:
        raise ValueError(f"{PREFIX}{name} needs a model and at least one sample; pass them as target and samples")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    own, wide = parsed(arguments), admitted(samples)
    batches = []
    for severity in severities:
        given = {**bounds(name, row, severity, relative_step, norm), **own}
        if given.get(row.eps) == 0:
            batches.append(wide.pixels.clone())
            continue
        batches.append(
            torch.cat(
                [
                    _one_chunk(name, row, given, wide.rows(range(len(wide.ids))[first : first + chunk]), target, stream)
                    for first, stream in zip(range(0, len(wide.ids), chunk), _streams(draw), strict=False)
                ]
            )
        )
    return tuple(batches)


def bounds(name: str, row: Foreign, severity: str, relative_step: float, norm: str) -> dict[str, Any]:
    """Return the arguments that fix the ball and the step. Raises ValueError where the attack has no such thing."""
    if (severity == UNBOUNDED) != (not row.eps):
        allowed = "an eps such as 8/255" if row.eps else f"{UNBOUNDED}, since it takes no eps"
        raise ValueError(f"{PREFIX}{name} has no severity {severity!r}; give {allowed}")
    if norm and norm not in row.norms:
        raise ValueError(f"{PREFIX}{name} has no norm {norm!r}; choose from {', '.join(row.norms)}")
    if relative_step and not row.relative_step:
        raise ValueError(f"{PREFIX}{name} takes no step size; leave relative_step out")
    given: dict[str, Any] = {}
    if row.eps:
        given[row.eps] = severity_value(severity)
    if row.relative_step:
        given["alpha"] = (relative_step or row.relative_step) * given[row.eps]
    if len(row.norms) > 1:
        given["norm"] = {"linf": "Linf", "l2": "L2"}[norm or row.norms[0]]
    return given


def parsed(arguments: str) -> dict[str, Any]:
    """Read `name=literal` pairs. Raises ValueError for anything else, and for what other settings decide.

    >>> parsed("steps=20, loss='dlr'")
    {'steps': 20, 'loss': 'dlr'}
    """
    wrong = ValueError(f"arguments must read like steps=20,decay=1.0 with literal values, got {arguments!r}")
    try:
        call = ast.parse(f"_({arguments})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(pair.arg is None for pair in call.keywords):
            raise wrong
        pairs = {str(pair.arg): ast.literal_eval(pair.value) for pair in call.keywords}
    except (SyntaxError, ValueError):
        raise wrong from None
    if decided := sorted({"model", "eps", "max_epsilon", "norm"} & pairs.keys()):
        raise ValueError(f"arguments cannot set {', '.join(decided)}; use the severity and the setting norm")
    return pairs


class Victim(nn.Module):
    """A target as torchattacks wants it: a module with a parameter, always in eval mode.

    An attack knows no identities: a stochastic target's noise belongs to the row and to the number of the look.
    """

    def __init__(self, target: Target, draw: Draw, like: Tensor) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros((), device=like.device, dtype=like.dtype), requires_grad=False)
        self.call = (target,)
        self.draw = draw
        self.looks = 0
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits."""
        self.looks += 1
        return self.call[0](pixels, tuple(map(str, range(len(pixels)))), self.draw.at(self.looks))


def _streams(draw: Draw) -> Iterator[Draw]:
    index = 0
    while True:
        yield draw.named("seed").at(index)
        index += 1


def _one_chunk(
    name: str, row: Foreign, given: Mapping[str, Any], samples: Samples, target: Target, stream: Draw
) -> Tensor:
    seed = int(stream.uniform(("chunk",), ()).item() * 2**24)
    victim = Victim(target, stream.named("model"), samples.pixels)
    arguments = dict(given)
    try:
        with isolated(seed), torch.inference_mode(False), torch.enable_grad():
            pixels, labels = samples.pixels.clone(), samples.labels.clone()
            if row.classes and "n_classes" not in arguments:
                arguments["n_classes"] = victim(pixels[:1]).shape[1]
            if row.seed and "seed" not in arguments:
                arguments["seed"] = seed
            attack = attack_class(name)(victim, **arguments)
            found: Tensor = attack(pixels, labels)
    except Exception as cause:
        raise RuntimeError(f"{PREFIX}{name} failed: {type(cause).__name__}: {cause}") from cause
    return found.detach().to(samples.pixels)


def attack_class(name: str) -> Any:
    """Return the class of torchattacks that bears the name; no other file imports torchattacks."""
    import torchattacks

    return getattr(torchattacks, name)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python inside, and put them back afterwards."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
