"""The figures that a run can fill."""

from collections.abc import Sequence

from .board import Board
from .curve import curve
from .depth import depth
from .figure import Figure
from .heatmap import heatmap
from .measure import Measure
from .scatter import scatter


def _any(board: Board, measure: Measure) -> bool:
    return any(board.estimate(label, measure).status == "ok" for label in board.labels)


def _curve(board: Board, name: str, families: Sequence[str], title: str) -> dict[str, Figure]:
    sweeps = [s for s in board.family(*families) if any(_any(board, board.at(s, v)) for v in s.severities)]
    return {name: curve(board, name, sweeps, title)} if sweeps else {}


def gallery(board: Board) -> dict[str, Figure]:
    """Return the figures by name; one without a single valid number is left out. Further tracks have one."""
    found: dict[str, Figure] = {}
    attack = "attack", ("adversarial",), "Accuracy against the strength of each attack"
    curves = (
        attack,
        ("severity", ("corruption",), "Accuracy against the level of each corruption"),
        ("contamination", ("contamination", "natural"), "Accuracy against the share of contaminated input"),
    )
    for name, families, title in curves:
        found |= _curve(board, name, families, title)
    for number, other in enumerate(board.others, 2):
        found |= _curve(other, f"track-{number}-attack", attack[1], f"{attack[2]}, trained with {other.track}")
    if any(_any(board, board.mean(f"mean:{s.shift}", s.shift, [s])) for s in board.family("corruption")):
        found["corruption"] = heatmap(board)
    if board.layer_metrics:
        found["collapse"] = depth(board)
    criterion, collapse = board.criterion, board.collapse
    if criterion and _any(board, criterion):
        clean = [board.at(s, s.severities[0]) for s in board.family("clean")[:1]]
        rivals = [m for m in [*([collapse] if collapse else []), *clean] if m.name != criterion.name and _any(board, m)]
        if rivals and collapse:
            title = "Robustness against collapse, and against clean accuracy"
            caption = (
                f"{criterion.heading} against collapse, and against clean accuracy, which it often follows. One "
                "point a row with intervals on both axes; a pattern among so few points shows no cause."
            )
            found["link"] = scatter(board, "link", rivals, criterion, title, caption)
        costs = [m for m in board.costs if _any(board, m)]
        if costs:
            caption = "Robustness against cost. Up and to the left is better. One point a row."
            found["cost"] = scatter(board, "cost", costs, criterion, "Robustness against cost", caption)
    return found
