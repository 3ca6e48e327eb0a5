"""Every gate that the facts of one examined model are put through, each in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .gate import ALL, WHITE, Doubt, Facts, Gate, Terms, counted, exact, most_by_chance, paired, unmeasured, worst


class Counted(NamedTuple):
    """A count of samples that chance may explain."""

    says: str
    """What is counted, after `samples`."""
    advice: str
    """What to do."""
    majority: Doubt = "suspect"
    """The verdict for more than half of all samples."""
    foreign: bool = False
    """As in `Gate`."""


class Exact(NamedTuple):
    """A count that has to be 0."""

    says: str
    """What is counted, after `samples`."""
    advice: str
    """What to do."""
    raised: Doubt
    """The verdict for any other count."""
    concerns: tuple[str, ...] = WHITE
    """As in `Gate`."""


COUNTED: Mapping[str, Counted] = {
    "saturated_cross_entropy": Counted(
        "have a cross-entropy without gradient in float32, though their logits have one",
        "believe attacks that climb the log-odds or a margin; those of other tools stand still here",
        foreign=True,
    ),
    "unstable_predictions": Counted(
        "move more under random noise than along their gradient",
        "attack with gradients averaged over a neighbourhood, and without gradients",
    ),
    "silent_success": Counted(
        "are fooled on the way and not at the last step",
        "believe attacks that keep the first point that fools; look for a gradient that leads astray",
    ),
    "incomplete_optimisation": Counted(
        "are not fooled yet and would be if the walk went on as it does",
        "give the attack more steps, or longer ones",
    ),
    "transfer_failure": Counted(
        "that fool the twin with open gradient paths do not fool the model, which ought to be the same function",
        "check that the twin computes what the model does",
    ),
    "unbounded_attack_fails": Counted(
        "survive an attack that may reach any image", "look for what stops the attack before anything else", "broken"
    ),
    "stuck_walk": Counted(
        "survive a walk that meets a gradient of 0", "attack without gradients, or through a smoother twin"
    ),
    "restarts_matter": Counted("fall to the last restart alone", "give the attack more restarts"),
    "black_box_stronger": Counted(
        "fall to squares found without gradients and to no gradient",
        "attack with more queries, and adapt the white box: its gradients may be masked",
        "broken",
    ),
    "noise_stronger": Counted(
        "fall to random noise and to no gradient", "the white box is not working: look at its gradients", "broken"
    ),
    "transfer_stronger": Counted(
        "fall to points found on another model and to no gradient of this one",
        "attack through the other model's gradients too: this model's may be masked",
    ),
    "saturated_attention": Counted(
        "have a layer most of whose softmax rows give all their weight to one key",
        "read the logit spread by layer; attack the logits of the attention themselves",
    ),
}
EXACT: Mapping[str, Exact] = {
    "undeclared_randomness": Exact(
        "have other logits from pass to pass, though the model is declared deterministic",
        "declare the model's noise, so that it is attacked and judged over several passes",
        "broken",
        ALL,
    ),
    "probabilities": Exact("", "give the model's logits instead", "suspect"),
    "dynamic": Exact("", "attack what the model optimises as well: an attack made for it is needed", "suspect"),
    "interrupted_graph": Exact(
        "have logits from which no gradient reaches the pixels",
        "attack without gradients, or through a differentiable twin",
        "broken",
    ),
}
FEW_CLASSES = "attack with the log-odds or a margin"
ZERO_GRADIENT = "attack without gradients, or through a twin that is differentiable there"
UNSTEADY = "average the gradient over more passes"
BATCH = "measure samples one by one: a sample's answer must not depend on its companions"
HIDDEN = (
    "declare `detaches` and `open_settings` in the variant: it is then attacked through the twin with every gradient "
    "path open too"
)
SINGLE_STEP = "look for a gradient that leads away from the image it was taken at: shorter steps, more restarts"
STEPS = "give the attack more steps until nothing changes; if more steps hurt it, look for a gradient that leads astray"
LARGER_EPS = "the walk loses its way in larger balls: smaller steps, more restarts, an attack without gradients"


Lookup = Callable[[str], Facts]


def _probabilities(fact: Lookup, terms: Terms) -> Gate:
    found, row = fact("probabilities"), EXACT["probabilities"]
    every = {**found, "count": int(found["count"] == found["n"])} if "count" in found else found
    gate = exact("probabilities", every, "", row.advice, row.raised)
    if gate.value is None:
        return gate
    reason = f"{found['count']} of {found['n']} outputs are probabilities; all of them would be a softmax"
    return gate._replace(value=found["count"] / found["n"], threshold=1.0, reason=reason)


def _dynamic(fact: Lookup, terms: Terms) -> Gate:
    found, row = fact("dynamic"), EXACT["dynamic"]
    gate = exact("dynamic", found, "", row.advice, row.raised)
    if gate.value is None:
        return gate
    calls = ", ".join(f"{name} {number} times" for name, number in found["calls"].items()) or "no gradient"
    return gate._replace(value=float(found["count"]), threshold=1.0, reason=f"one pass of the model asks for {calls}")


def _few_classes(fact: Lookup, terms: Terms) -> Gate:
    found = fact("few_classes")
    gate = unmeasured("few_classes", found, FEW_CLASSES)
    if gate:
        return gate
    number = int(found["classes"])
    lost = "the DLR loss needs 3" if number < 3 else "the targeted DLR loss needs 4"
    reason = f"the model has {number} classes"
    if number < 4:
        return Gate("few_classes", "not applicable", number, found["n"], 4, f"{reason}: {lost}", FEW_CLASSES)
    return Gate("few_classes", "ok", number, found["n"], 4, reason, FEW_CLASSES)


def _zero_gradient(fact: Lookup, terms: Terms) -> Gate:
    """Call it broken where most gradients are 0 and something that needs none fools what the white box leaves."""
    blind = [counted(name, fact(name), terms, "", "") for name in ("black_box_stronger", "noise_stronger")]
    broken = any(gate.verdict not in ("ok", "not applicable") for gate in blind)
    says = "have a gradient of exactly 0"
    majority: Doubt = "broken" if broken else "suspect"
    return counted("zero_gradient", fact("zero_gradient"), terms, says, ZERO_GRADIENT, majority=majority)


def _unsteady_gradient(fact: Lookup, terms: Terms) -> Gate:
    """Ask for proof that two averages of the gradient agree more often than chance would have it."""
    found = fact("unsteady_gradient")
    gate = unmeasured("unsteady_gradient", found, UNSTEADY)
    if gate:
        return gate
    count, n = int(found["count"]), int(found["n"])
    fewest = most_by_chance(n, 0.5, terms.level) + 1
    reason = f"two averages of the gradient disagree on {count} of {n} samples; chance would have it half"
    raised: Doubt = "ok" if n - count >= fewest else "suspect"
    return Gate("unsteady_gradient", raised, count / n, n, (n - fewest + 1) / n, reason, UNSTEADY)


def _batch_dependence(fact: Lookup, terms: Terms) -> Gate:
    found = fact("batch_dependence")
    says = "have other logits among other companions"
    raised: Doubt = "suspect" if found.get("declared_noise") else "broken"
    gate = exact("batch_dependence", found, says, BATCH, raised, ALL)
    if gate.verdict == "suspect":
        return gate._replace(reason=gate.reason + ", or noise that is not a sample's own")
    return gate


def _hidden_gradient(fact: Lookup, terms: Terms) -> Gate:
    """Let an attack through the opened twin speak where there is one."""
    found, beside = fact("hidden_gradient"), fact("opened_twin_stronger")
    gate = counted("hidden_gradient", found, terms, "have a gradient that is not the slope", HIDDEN)
    if gate.value is None:
        return gate
    gate = gate._replace(reason=f"{gate.reason}; the median slope is off by {found['median_error']:.2g}")
    if gate.verdict != "ok" and _opened_twin(fact, terms).verdict == "ok":
        reason = f"{gate.reason}; the opened twin fools {beside['weaker_only']} that it spares"
        return gate._replace(verdict="ok", reason=f"{reason}, against {beside['stronger_only']} the other way")
    return gate


def _opened_twin(fact: Lookup, terms: Terms) -> Gate:
    return _pair(fact("opened_twin_stronger"), "opened_twin_stronger", terms, "only the opened twin fools", HIDDEN)


def _single_step(fact: Lookup, terms: Terms) -> Gate:
    name = "single_step_stronger"
    return _pair(fact(name), name, terms, "one step fools what the whole walk does not", SINGLE_STEP)


def _pair(found: Facts, name: str, terms: Terms, says: str, advice: str) -> Gate:
    return unmeasured(name, found, advice) or paired(
        name, found["weaker_only"], found["stronger_only"], terms.level, says, advice
    )


def _steps(fact: Lookup, terms: Terms) -> Gate:
    """Double the steps: a change either way is a doubt, so each way has half of the level."""
    found = fact("steps_matter")
    gate = unmeasured("steps_matter", found, STEPS)
    if gate:
        return gate
    fewer, more = found["weaker_only"], found["stronger_only"]
    ways = {"twice the steps fool more": (more, fewer), "twice the steps fool fewer": (fewer, more)}
    both = [paired("steps_matter", *pair, terms.level / 2, says, STEPS) for says, pair in ways.items()]
    return worst(both)


def _larger_eps(fact: Lookup, terms: Terms) -> Gate:
    """Judge every two neighbouring eps, each at its share of the level, and show the worst."""
    name, found = "larger_eps_weaker", fact("larger_eps_weaker")
    gate = unmeasured(name, found, LARGER_EPS)
    if gate:
        return gate
    judged = [
        paired(
            name,
            pair["weaker_only"],
            pair["stronger_only"],
            terms.level / len(found["pairs"]),
            f"eps {pair['smaller']:.4g} fools what {pair['larger']:.4g} does not",
            LARGER_EPS,
        )
        for pair in found["pairs"]
    ]
    return worst(judged)


JUDGES: Sequence[Callable[[Lookup, Terms], Gate]] = (
    _probabilities,
    _dynamic,
    _few_classes,
    _batch_dependence,
    _zero_gradient,
    _unsteady_gradient,
    _hidden_gradient,
    _opened_twin,
    _single_step,
    _steps,
    _larger_eps,
)


def examined(facts: Facts, terms: Terms) -> list[Gate]:
    """Return every gate of what `evidence` measured; a fact that is missing was not measured."""
    measured = facts["measured"]

    def fact(name: str) -> Facts:
        found: Facts = measured.get(name, {"not_applicable": "it was not measured"})
        return found

    plain = [
        exact(name, fact(name), row.says, row.advice, row.raised, row.concerns)
        for name, row in EXACT.items()
        if row.says
    ]
    counts = [
        counted(name, fact(name), terms, row.says, row.advice, majority=row.majority, foreign=row.foreign)
        for name, row in COUNTED.items()
    ]
    return [*plain, *(judge(fact, terms) for judge in JUDGES), *counts]
