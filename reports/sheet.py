"""The tables behind the board: every severity, every layer, every cost."""

from collections.abc import Sequence

from .board import Board, Sweep
from .measure import Measure
from .number import plural
from .ranking import name
from .table import Column, Entry, Table, estimated, measured, said, words

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
            first = Entry(sweep.shift, value=sweep.shift)
            rows.append((first, name(board, label), *entries, estimated(board.estimate(label, summary), summary)))
    return Table(table, caption, tuple(columns), tuple(rows))


def attacks(board: Board) -> Table:
    """Return accuracy under every attack at every severity."""
    sweeps = board.family("adversarial")
    units = ", ".join(dict.fromkeys(sweep.unit for sweep in sweeps if sweep.unit)) or "severity"
    caption = f"Accuracy (%) under each attack. Columns: {units}. Area: under the curve from clean on. {METHOD}"
    return _severities(board, sweeps, "attacks", caption, curves=True)


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
    rows = [(name(board, x), *(estimated(board.estimate(x, m), m) for m in measures)) for x in board.order]
    return Table(
        "costs", "What each row costs, measured on the processor named under provenance.", columns, tuple(rows)
    )


def conditions(board: Board, metric: str) -> list[tuple[str, dict[tuple[str, str], float]]]:
    """Return the inputs on which collapse is compared: clean, and the hardest of each family."""
    found = [("clean", board.parts(metric, board.family("clean")[:1]))]
    criterion = board.criterion
    attacks = board.family("adversarial")
    chosen = [s for s in attacks if criterion and any(s.shift == shift for shift, _ in criterion.weights)] or attacks[
        :1
    ]
    if chosen:
        weights = board.parts(metric, chosen[:1], last=True)
        title = "".join(f"{shift} at {severity}" for shift, severity in weights) or chosen[0].shift
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
