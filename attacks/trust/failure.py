"""Six signs that an attack failed although the model need not be robust, by the walk at the reference eps.

Pintor et al. 2022, arXiv:2106.09947, whose single numbers are counts of samples here; the first of the six, unavailable
gradients, is `interrupted_graph` and `zero_gradient` in `flags`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..adversarial.ball import BALLS
from ..adversarial.random_noise import EDGES
from ..samples import Target
from .fact import Facts, absent, counted
from .runs import Runs
from .trial import Trial

SHAKES = 20
"""Random perturbations with which a gradient step is compared."""


def failures(trial: Trial, seen: Runs, opened: Target | None) -> Facts:
    """Return the facts behind the signs, by name."""
    walk = seen.restarts[0]
    if trial.deterministic:
        silent = counted(walk.ever & ~walk.fooled)
        incomplete = counted(unfinished(seen.doubled.margins) & ~walk.ever)
    else:
        silent = absent("a stochastic model is judged at the end of a walk only: in between it errs by chance")
        incomplete = absent("a stochastic model's loss moves by chance: see steps_matter")
    stuck = walk.blind & ~walk.ever
    return {
        "unstable_predictions": counted(unstable(trial, seen.eps)),
        "silent_success": silent,
        "incomplete_optimisation": incomplete,
        "transfer_failure": transfer_failure(trial, seen, opened),
        "unbounded_attack_fails": counted(~seen.unbounded.ever),
        "stuck_walk": {**counted(stuck.any(0)), "by_step": stuck.sum(1).tolist()},
    }


def unfinished(margins: Float[Tensor, "look batch"]) -> Bool[Tensor, " batch"]:
    """Return where a walk would reach another class if it went on gaining as it did.

    Of the best margin so far, g is gained in the first half of the walk and h in the second; if gains go on falling at
    that ratio, h^2 / (g - h) is still to come, and without end where h >= g. The paper asks whether the last ten steps
    gained more than 5 % of the range instead: in L2, where a step turns a perturbation by ever less, they often do long
    after no outcome changes.

    >>> unfinished(torch.tensor([[-9.0, -9.0], [-8.0, -5.0], [-7.0, -4.0], [-6.0, -4.0], [-5.0, -3.9]])).tolist()
    [True, False]
    """
    best = margins.cummax(0).values
    middle = best[len(best) // 2]
    first, second = middle - best[0], best[-1] - middle
    return (second > 0) & (second**2 >= -best[-1] * (first - second))


def unstable(trial: Trial, eps: float) -> Bool[Tensor, " batch"]:
    """Return where a random perturbation changes the loss by more than a gradient step of the same size gains.

    The size is that of one step of the walk, the change that of the middle one of 20 points drawn from the ball's edge.
    On a smooth function of d pixels the gradient gains about sqrt(d) times as much. The paper's number, the mean
    relative change of the loss, has no value that would be too large.
    """
    ball, right, size = BALLS[trial.norm], trial.right, trial.settings.relative_step * eps
    view = trial.look()(right, steepest=True)
    assert view.gradient is not None

    def change(direction: Tensor) -> Tensor:
        pixels = ball.project(right.pixels + size * direction.to(right.pixels), right.pixels, size)
        return trial.look()(right._replace(pixels=pixels)).loss - view.loss

    gain = change(ball.normalize(view.gradient))
    shape = right.pixels.shape[1:]
    streams = (trial.draw.named("shake").at(i) for i in range(SHAKES))
    shakes = [change(EDGES[trial.norm](ball.random_start(stream, right.ids, shape))).abs() for stream in streams]
    return torch.stack(shakes).median(0).values > gain


def transfer_failure(trial: Trial, seen: Runs, opened: Target | None) -> Facts:
    """Return how many points that fool the opened twin do not fool the model, `n` being those that fool the twin.

    The twin is the same function with every gradient path open, so none should.
    """
    if opened is None or seen.opened is None:
        return absent("no twin with open gradient paths was given")
    if not (opened.deterministic and trial.deterministic):
        return absent("a stochastic twin is fooled by chance too")
    twin = Trial(opened, *trial[1:]).fooled(seen.opened.pixels)
    return {"count": int((twin & ~seen.opened.fooled).sum()), "n": int(twin.sum())}
