"""Whether attacks that ought to be stronger are, sample by sample: what can be automated of a checklist.

Carlini et al. 2019, arXiv:1902.06705, section 5. Every walk starts from scratch and is judged at its last step, so that
more steps or a larger ball can also help the model; only where attacks of another kind are compared with the white box
does any step of its walks count.
"""

from itertools import pairwise

from ..adversarial.random_noise import noise_searches
from ..adversarial.square import square_searches
from .fact import Facts, absent, counted, paired
from .runs import Runs
from .trial import Trial


def checklist(trial: Trial, seen: Runs) -> Facts:
    """Return the facts behind the checklist, by name."""
    settings, walk, white = trial.settings, seen.restarts[0], seen.white
    spent = 1 if trial.deterministic else settings.passes
    square = square_searches(trial.norm, max(settings.queries // spent, 1), 1)[0]
    noise = noise_searches(trial.norm, max(settings.draws // spent, 1))[0]
    alone = [counted(trial.searched(search, seen.eps, ~white)) for search in (square, noise)]
    return {
        "single_step_stronger": paired(seen.single.fooled, walk.fooled),
        "steps_matter": paired(walk.fooled, seen.doubled.fooled),
        "larger_eps_weaker": larger_eps(trial, seen),
        "restarts_matter": restarts(seen),
        "black_box_stronger": {**alone[0], "white": int(white.sum())},
        "noise_stronger": {**alone[1], "white": int(white.sum())},
        "transfer_stronger": transfer(seen),
        "opened_twin_stronger": twin(seen),
        "curve": {"fooled": [int(rung.fooled.sum()) for rung in seen.rungs], "n": len(trial.right.ids)},
    }


def larger_eps(trial: Trial, seen: Runs) -> Facts:
    """Return, for each two neighbouring eps, on how many samples only the smaller or only the larger one succeeds."""
    steps = [
        {"smaller": low, "larger": high, **paired(before.fooled, after.fooled)}
        for (low, high), (before, after) in zip(pairwise(trial.ladder), pairwise(seen.rungs), strict=True)
    ]
    return {"pairs": steps, "n": len(trial.right.ids)} if steps else absent("the ladder has one eps")


def restarts(seen: Runs) -> Facts:
    """Return how many samples the last restart fools that none before it did, and, by restart, all such numbers."""
    standing = ~seen.restarts[0].ever
    fresh = []
    for run in seen.restarts[1:]:
        fresh.append(int((standing & run.ever).sum()))
        standing = standing & ~run.ever
    return {"count": fresh[-1], "n": len(standing), "by_restart": fresh}


def transfer(seen: Runs) -> Facts:
    """Return how many samples fall to points found on another model and to none of the white box's."""
    if seen.surrogate is None:
        return absent("no other model was given")
    found = seen.surrogate.fooled
    return {**counted(found & ~seen.white), "transferred": int(found.sum()), "white": int(seen.white.sum())}


def twin(seen: Runs) -> Facts:
    """Compare the walk along the opened twin's gradients with the one along the model's own."""
    if seen.opened is None:
        return absent("no twin with open gradient paths was given")
    return paired(seen.opened.fooled, seen.restarts[0].fooled)
