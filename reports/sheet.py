"""The tables behind the board: every severity, every layer, every cost."""

from collections.abc import Sequence

from .board import Board
from .measure import Measure
from .number import plural
from .ranking import composition, name
from .sweep import Sweep
from .table import Column, Entry, Table, estimated, measured, said, words

NORMS = {"linf": "L-inf", "l2": "L2", "patches": "patches", "tokens": "tokens", "none": "no ball"}
"""Norms of the store, as readers see them."""
METHOD = "Brackets are intervals; how each was made is said in the section on measurement."


def _severities(board: Board, sweeps: Sequence[Sweep], table: str, caption: str, *, curves: bool = False) -> Table:
    """Return one line a shift and row, one column a severity; shifts that share severities share columns."""
    ladder = list(dict.fromkeys(severity for sweep in sweeps for severity in sweep.severities))
    columns = [
        *words("shift", "row"),
        *(Column(s, s, "%", "higher") for s in ladder),
        Column("summary", "area" if curves else "mean", "%", "higher"),
    ]
    rows = []
    for sweep in sweeps:
        summary = board.curve(sweep) if curves else board.mean(f"mean:{sweep.shift}", f"{sweep.shift}, mean", [sweep])
        for label in board.order:
            entries = [
                estimated(board.estimate(label, m), m)
                if (m := board.at(sweep, s)) and s in sweep.severities
                else Entry("")
                for s in ladder
            ]
            first = Entry(sweep.shift, value=sweep.shift, note=warning(board, sweep))
            rows.append((first, name(board, label), *entries, estimated(board.estimate(label, summary), summary)))
    return Table(table, caption, tuple(columns), tuple(rows))


def warning(board: Board, sweep: Sweep) -> str:
    """Return the known defects of a shift, empty where none is known."""
    said = str(board.run.declared("shifts", sweep.shift).get("warning") or "")
    return f"known defect of {sweep.shift}: {said}" if said else ""


def attacks(board: Board) -> tuple[Table, ...]:
    """Return accuracy under every attack at every severity, a table for each norm, worst cases first."""
    norms: dict[str, list[Sweep]] = {}
    for sweep in board.family("adversarial"):
        norms.setdefault(sweep.norm if sweep.norm in NORMS else "", []).append(sweep)
    found = []
    for norm, sweeps in norms.items():
        units = ", ".join(dict.fromkeys(sweep.unit for sweep in sweeps if sweep.unit)) or "severity"
        members = "".join(f"{composition(sweep)} " for sweep in sweeps if sweep.members)
        area = "Area: under the curve from clean on."
        ball = f" ({NORMS[norm]})" if norm and len(norms) > 1 else ""
        caption = f"Accuracy (%) under each attack{ball}. Columns: {units}. {area} {members}{METHOD}"
        name = "attacks" if len(norms) == 1 else f"attacks-{norm or 'other'}"
        found.append(_severities(board, sweeps, name, caption, curves=True))
    return tuple(found)


def corruptions(board: Board) -> Table:
    """Return accuracy under every corruption at every level."""
    caption = f"Accuracy (%) under each corruption at each level. {METHOD}"
    return _severities(board, board.family("corruption"), "corruptions", caption)


def contaminations(board: Board) -> Table:
    """Return accuracy under every contamination and natural shift at every rate."""
    sweeps = board.family("contamination", "natural")
    units = ", ".join(dict.fromkeys(sweep.unit for sweep in sweeps if sweep.unit)) or "severity"
    return _severities(board, sweeps, "contaminations", f"Accuracy (%) under contamination. Columns: {units}. {METHOD}")


def costs(board: Board) -> Table:
    """Return what each row costs."""
    measures = board.costs
    columns = (*words("row"), *(measured(m) for m in measures))
    labels = board.order if measures else []
    rows = [(name(board, x), *(estimated(board.estimate(x, m), m) for m in measures)) for x in labels]
    return Table(
        "costs", "What each row costs, measured on the processor named under provenance.", columns, tuple(rows)
    )


def conditions(board: Board, metric: str) -> list[tuple[str, dict[tuple[str, str], float]]]:
    """Return the inputs on which collapse is compared: clean, and the hardest of each family."""
    found = [("clean", board.parts(metric, board.family("clean")[:1]))]
    # A worst case is made of outcomes and has no hidden states: the attack that stands for all has.
    chosen = board.ladder
    if chosen:
        weights = board.parts(metric, [chosen], last=True)
        title = "".join(f"{shift} at {severity}" for shift, severity in weights) or chosen.shift
        found.append((title, weights))
    for family in ("corruption", "contamination", "natural"):
        if sweeps := board.family(family):
            weights = board.parts(metric, sweeps, last=True)
            single = [f"{shift} at {severity}" for shift, severity in weights] if len(weights) == 1 else []
            found.append((single[0] if single else f"hardest {family}, {plural(len(weights), 'kind')}", weights))
    return found


def at_layer(board: Board, metric: str, title: str, weights: dict[tuple[str, str], float], layer: int) -> Measure:
    """Return one metric of hidden states at one layer under one condition."""
    return board.measure(f"{metric}:{title}:{layer}", f"{metric}, layer {layer}, {title}", metric, weights, layer)


def collapse(board: Board) -> Table:
    """Return every metric of hidden states by layer, clean and shifted."""
    layers = sorted({layer for metric in board.layer_metrics for layer in board.layers(metric)})
    columns = (*words("metric", "input", "row"), *(Column(f"layer_{n}", f"layer {n}") for n in layers))
    rows = []
    for metric in board.layer_metrics:
        for title, weights in conditions(board, metric):
            if not weights:
                continue
            for label in board.order:
                entries = []
                for layer in layers:
                    measure = at_layer(board, metric, title, weights, layer)
                    known = layer in board.layers(metric)
                    entries.append(estimated(board.estimate(label, measure), measure) if known else Entry(""))
                rows.append((*said([metric, title]), name(board, label), *entries))
    caption = f"Collapse by layer; the last layer is what the head reads. {METHOD}"
    return Table("collapse", caption, columns, tuple(rows))
