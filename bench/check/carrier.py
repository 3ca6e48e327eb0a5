"""The life of a variant in a network: computed again, compiled, stored, trained and attacked."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ...attacks.adversarial.pgd import PGD, pgd
from ...attacks.draw import Draw
from ..ball import fault, perturbation
from ..checkpoint import load_weights, tensor_bytes
from ..recipes.standard import STANDARD
from ..target import ModelTarget
from .face import difference
from .finding import Finding, Refuted, passed
from .subject import MOVED, Subject, in_any_layer

EPS = "0.05"
STEPS = 3
"""Optimiser steps of the training check: what is built as a product with zero learns from the second one on."""
ROWS_A_STEP = 16


def checkpointing(subject: Subject) -> Finding:
    """Blocks that are computed again in the backward pass give the same gradients, layer state and noise included."""
    found: list[dict[str, Tensor]] = []
    samples = subject.samples()
    for again in (False, True):
        model = subject.network(moved=MOVED, dtype=torch.float64).train()
        model.checkpointing = again
        noise = subject.noise(model, samples, training=True)
        model(samples.pixels.double(), noise).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    kept, recomputed = found
    for name in sorted(kept.keys() | recomputed.keys()):
        a, b = kept.get(name), recomputed.get(name)
        if a is None or b is None or not torch.allclose(a, b, rtol=1e-9, atol=1e-9):
            raise Refuted(
                f"the gradient of {name} changes when blocks are computed again",
                "keep nothing between calls and draw nothing in forward: read ctx.noise, ctx.first, ctx.previous",
            )
    return passed("the same gradients with blocks computed again")


def compilation(subject: Subject) -> Finding:
    """The whole network compiles into one graph of the same function."""
    model, samples = subject.network(moved=MOVED), subject.samples()
    noise = subject.noise(model, samples)
    torch._dynamo.reset()
    try:
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        moved = difference(model(samples.pixels, noise), compiled(samples.pixels, noise))
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refuted(
            f"it does not compile into one graph: {first}",
            "no branch on a tensor's values, no .item(), no generator and no numpy in forward",
        ) from error
    finally:
        torch._dynamo.reset()
    if moved > 1e-5:
        raise Refuted(
            f"compiled, the logits move by {moved:.2g}", "no Python side effect in forward that a second call would see"
        )
    return passed("compiles into one graph of the same function")


def weights(subject: Subject) -> Finding:
    """A network that loads its stored tensors gives the same logits, bit by bit."""
    model, other, samples = subject.network(0, moved=MOVED), subject.network(1), subject.samples()
    noise = subject.noise(model, samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        path.write_bytes(tensor_bytes(model.state_dict()))
        load_weights(other, path)
    with torch.no_grad():
        first, second = model(samples.pixels, noise), other(samples.pixels, noise)
    if not torch.equal(first, second):
        raise Refuted(
            f"after a round trip through a file the logits move by {difference(first, second):.2g}",
            "keep everything that training or drawing sets in parameters or persistent buffers",
        )
    return passed(f"{len(model.state_dict())} tensors, the same logits after a round trip")


def training(subject: Subject) -> Finding:
    """A few steps of the standard recipe change everything that can learn and leave nothing that is no number."""
    model = subject.network()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    settings = {**STANDARD.settings, "epochs": 1, "batch": ROWS_A_STEP}
    facts = STANDARD.fit(model, subject.samples(STEPS * ROWS_A_STEP, 1), 0, **settings)
    learned: dict[str, bool] = {}
    for name, p in model.named_parameters():
        if name in before:
            local = in_any_layer(name)
            learned[local] = learned.get(local, False) or not torch.equal(before[name], p)
    stuck = [name for name, moved in learned.items() if not moved]
    if stuck:
        raise Refuted(
            f"{STEPS} steps do not move {', '.join(stuck)} in any layer", "use it in forward, or make it a buffer"
        )
    bad = [name for name, t in model.state_dict().items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if bad:
        raise Refuted(f"after {STEPS} steps {', '.join(bad)} is not finite", "guard divisions, roots and exponentials")
    return passed(f"{STEPS} steps move every parameter, loss {facts['final_loss']:.3g}")


def attack(subject: Subject) -> Finding:
    """Projected gradient descent moves the pixels of images that the network gets right, and stays inside its ball."""
    samples = subject.samples(8)
    target = ModelTarget(subject.network(moved=MOVED))
    with torch.no_grad():
        answers = target(samples.pixels, samples.ids, Draw(0, "pgd", "judge")).argmax(1)
    samples = samples._replace(labels=answers)
    settings = {**PGD.settings, "steps": 2, "passes": 2}
    (images,) = pgd(samples, [EPS], Draw(0, "pgd", "attack"), target, **settings)  # type: ignore[arg-type]
    found = perturbation(samples.pixels, images, "linf")
    if reason := fault(found, "linf", float(EPS)):
        raise Refuted(f"pgd at eps {EPS}: {reason}", "look at the gradient of the network by its pixels")
    if found.largest == 0:
        raise Refuted(f"pgd at eps {EPS} moves no pixel", "look at the gradient of the network by its pixels")
    return passed(f"pgd moves pixels by {found.largest:.3g} of {EPS}")
