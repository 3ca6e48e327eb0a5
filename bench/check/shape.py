"""Outputs have the right shape, kind of number and size in every precision that networks are run in."""

import torch
from torch import Tensor

from .face import Face, Inputs
from .finding import Finding, Refuted, passed
from .subject import Subject

PRECISIONS = (torch.float64, torch.float32, torch.bfloat16)
CLOSE = {torch.float64: 0.0, torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest error of the typical entry, relative to the typical size of the outputs."""


def shapes(subject: Subject) -> Finding:
    """`[batch, head, token, head_dim]` at two sizes in float32, float64, bfloat16 and under autocast."""
    for size in subject.sizes:
        for layer in (1, 0):
            faces = {d: subject.faces(size=size, dtype=d, layers=[layer]) for d in PRECISIONS}
            for sides in zip(*faces.values(), strict=True):
                _agreeing(dict(zip(PRECISIONS, sides, strict=True)))
            _under_autocast(Face(faces[torch.float32][0].host, True))
    tokens = " and ".join(str(size.tokens) for size in subject.sizes)
    return passed(f"right at {tokens} tokens in float64, float32, bfloat16 and under autocast")


def _agreeing(faces: dict[torch.dtype, Face]) -> None:
    exact: Tensor | None = None
    given = faces[torch.float64].inputs()
    for dtype, face in faces.items():
        y = _output(face, given.changed(lambda name, t, dtype=dtype: t.to(dtype)), str(dtype))  # type: ignore[misc]
        if y.dtype != dtype:
            raise Refuted(
                f"{face.name}: the output is {y.dtype} where the inputs are {dtype}",
                "name no dtype in the core: make new tensors like the inputs, cast buffers and noise to their dtype",
            )
        exact = y if exact is None else exact
        error = float((y.double() - exact).abs().median() / exact.square().mean().sqrt().clamp_min(1e-12))
        if not error <= CLOSE[dtype]:
            raise Refuted(
                f"{face.name}: in {dtype} the typical entry is {error:.2g} of the outputs' size off that in float64",
                "compute what cancels or overflows in a form that does not (in the logarithm, after a subtraction)",
            )


def _under_autocast(face: Face) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        y = _output(face, face.inputs(), "autocast to bfloat16")
    if not y.is_floating_point():
        raise Refuted(f"{face.name}: the output under autocast is {y.dtype}", "return floating-point numbers")


def _output(face: Face, given: Inputs, where: str) -> Tensor:
    try:
        y = face(given).detach()
    except RuntimeError as error:
        if where == str(torch.float64):
            raise
        raise Refuted(
            f"{face.name} in {where}: {str(error).splitlines()[0]}",
            "name no dtype in the core: make new tensors like the inputs, cast buffers and noise to their dtype",
        ) from error
    batch = len(given.leaves["x"])
    if tuple(y.shape) != face.shape(batch):
        raise Refuted(
            f"{face.name} in {where}: returned {list(y.shape)} where {list(face.shape(batch))} is expected",
            "return [batch, head, token, head_dim], shaped like the queries",
        )
    if not bool(y.isfinite().all()):
        raise Refuted(f"{face.name} in {where}: the output is not finite", "guard divisions, roots and exponentials")
    return y
