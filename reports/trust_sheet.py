"""The table that says which adversarial numbers can be believed, and what speaks against the others."""

from collections.abc import Iterable, Mapping

from .board import Board
from .credence import NOT_EXAMINED, Spoken, balls
from .number import plural
from .run import Document, Run
from .sheet import NORMS
from .table import Column, Entry, Table, said, words

CONCERNS = {"white_box": "with gradients", "black_box": "without gradients", "transfer": "transferred"}


def trust(board: Board) -> Table:
    """Return the verdict of every row in every ball, of the rows of all tracks; empty without an attack."""
    norms = _norms(board)
    rows = []
    for label in [row["label"] for row in board.run.rows] if norms else ():
        rows.append((Entry(label, value=label), *(_verdict(board, label, norm) for norm in norms)))
    caption = (
        "Which adversarial numbers can be believed, row by row and ball by ball. Suspect numbers are shown, ranked and "
        "marked; broken ones are shown, marked and never compared. A verdict is that of attacks with gradients. "
        "Trusted says that nothing spoke against the attack, not that no stronger attack exists."
    )
    columns = (*words("row"), *(Column(norm or "attacks", NORMS.get(norm, "attacks"), words=True) for norm in norms))
    return Table("trust", caption, columns, tuple(rows))


def _norms(board: Board) -> list[str]:
    return list(dict.fromkeys([*balls(board.sweeps), *(norm for _, norm in board.credences)]))


def _verdict(board: Board, label: str, norm: str) -> Entry:
    """Return a verdict with what it rests on, and the reasons for anything but trust."""
    found = board.credences.get((label, norm))
    if found is None:
        return Entry("-")
    doubt = found.doubt("white_box")
    count = plural(len(found.spoken), "gate")
    below = f"{found.examined} of {plural(found.networks, 'network')}, {count}" if found.examined or doubt.word else ""
    reasons = [found.reason, found.few if found.word == NOT_EXAMINED else ""]
    why = "; ".join(f"{NOT_EXAMINED}: {x}" for x in reasons if x)
    reason = f"{doubt.word}: {doubt.reason}" if doubt.word else ""
    notes = [note for note in (reason, why, *remarks(board.run, label, norm)) if note]
    word = found.word
    return Entry("" if doubt.word else word, below, word, note="; ".join(notes), chip=doubt.word)


def raised_gates(board: Board) -> Table:
    """Return a line for each gate that is raised, row by row and ball by ball, of the rows of all tracks."""
    columns = (
        *words("row", "ball", "gate", "what was found", "what to do", "numbers of attacks"),
        Column("measured", "measured"),
        Column("threshold", "raised from"),
        Column("samples", "n"),
        *words("networks"),
    )
    rows = []
    for label in [row["label"] for row in board.run.rows]:
        for norm in _norms(board):
            found = board.credences.get((label, norm))
            for spoken in found.raised if found else ():
                networks = f"{spoken.networks} of {found.networks}" if found else ""
                start = (Entry(label, value=label), *said([NORMS.get(norm, "-")]))
                rows.append((*start, *_line(spoken), *said([networks])))
    caption = (
        "Gates that are raised, at the network where each is worst. A gate asks for one thing that would make numbers "
        "too high, and is raised where more samples show it than chance explains, at one in a hundred a row."
    )
    return Table("gates", caption, columns, tuple(rows))


def _line(spoken: Spoken) -> tuple[Entry, ...]:
    gate = spoken.gate
    numbers = [Entry("-" if x is None else f"{x:.3g}", value=x) for x in (gate.value, gate.threshold)]
    concerns = [CONCERNS[known] for known in gate.concerns if known in CONCERNS]
    kinds = "all" if len(concerns) == len(CONCERNS) else ", ".join(concerns)
    chip = gate.verdict if gate.verdict in ("suspect", "broken") else ""
    kinds = f"{kinds}, on the plain cross-entropy only" if gate.foreign else kinds
    return (
        Entry(gate.name.replace("_", " "), value=gate.name, chip=chip),
        *said([gate.reason, gate.what_to_do, kinds]),
        *numbers,
        Entry(f"{gate.n:,}", value=gate.n),
    )


def remarks(run: Run, label: str, norm: str) -> list[str]:
    """Return how the attacks on a row in a ball were run and judged where that is out of the ordinary."""
    cells = [c for c in run.planned if c["label"] == label and c["family"] == "adversarial" and c.get("norm") == norm]
    facts = [run.facts(cell) for cell in cells if cell["key"] in run.cells and not cell.get("convention")]
    found = []
    if any(fact.get("opened") for fact in facts):
        taken = round(_most(facts, "taken_from_open"))
        times = f"gave the stronger point up to {plural(taken, 'time')} in a cell, samples and severities counted"
        which = times if taken else "never gave the stronger point"
        found.append(f"also attacked through its twin with every gradient path open, which {which}")
    if any(fact.get("judged_alone") for fact in facts):
        coupling = 100 * _most(facts, "coupling")
        found.append(
            f"judged one sample at a time: others in a batch move its logits by up to {coupling:.2g} % of the largest"
        )
    return found


def _most(facts: Iterable[Document], name: str) -> float:
    return max((float(fact.get(name) or 0.0) for fact in facts), default=0.0)


def trust_sentence(board: Board) -> str:
    """Say how far the adversarial numbers of a board can be believed; empty where there is none."""
    if not balls(board.sweeps):
        return ""
    known = {key: found.word for key, found in board.credences.items() if key[0] in board.labels}
    if not any(found.examined for (label, _), found in board.credences.items() if label in board.labels):
        start = "Whether the adversarial numbers can be believed was not examined: "
        start += "the protocol asks for none" if board.run.protocol.get("trust") == 0 else "no trust cell is done"
    else:
        start = "How far the adversarial numbers can be believed is said under Trust"
    parts: list[str] = []
    for word in ("broken", "suspect", "trusted", NOT_EXAMINED):
        names = _balls_by_row(board, known, word)
        if names and (word != NOT_EXAMINED or parts):
            parts.append(f"{word}: {', '.join(names)}")
    listed = "; ".join(parts)
    return f"{start}. {listed[:1].upper()}{listed[1:]}." if parts else f"{start}."


def _balls_by_row(board: Board, known: Mapping[tuple[str, str], str], word: str) -> list[str]:
    """Return the rows with a verdict, each with the balls in which it has it; balls that all rows share come first."""
    norms = [norm for norm in _norms(board) if any((label, norm) in known for label in board.labels)]
    shared = [norm for norm in norms if all(known.get((label, norm)) == word for label in board.labels)]
    every = "all rows" if len(board.run.tracks) == 1 else "all rows of this track"
    found = {every: shared} if len(board.labels) > 1 else {}
    for label in board.labels:
        rest = found.get(every, [])
        found[board.short(label)] = [n for n in norms if n not in rest and known.get((label, n)) == word]
    return [
        f"{name} ({', '.join(NORMS[norm] for norm in balls)})" if all(norm in NORMS for norm in balls) else name
        for name, balls in found.items()
        if balls
    ]
