"""How far one cell's adversarial numbers can be believed: what the trust cell of its network and ball came to.

The reports are imported where they are asked: other commands start without pandas.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from rich.table import Table

from ...results.store import Document, Store
from ..catalog import open_catalog
from ..cell_node import TRUST
from ..error import AttnbenchError
from ..key import key_of

KNOWN: Mapping[str, str] = {"white_box": "white box", "black_box": "black box", "transfer": "transfer"}
"""Kinds of knowledge that verdicts differ by, in words."""
FOREIGN = "torchattacks"
"""Attacks that climb the plain cross-entropy, in words."""


def _plan(store: Store) -> Document:
    return store.run() if (store.root / "run.json").exists() else {}


def declared(store: Store, name: str) -> Mapping[str, Any]:
    """Return the declaration of a shift as the run kept it, else as it is now; empty for what is no shift."""
    kept = _plan(store).get("declarations", {}).get("shifts", {})
    found: Mapping[str, Any] | None = next((d for d in kept.values() if d["name"] == name), None)
    if found is not None:
        return found
    with suppress(AttnbenchError):
        value = open_catalog().shift(name).value
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {}


def trust_line(store: Store, model: Mapping[str, Any], norm: str, about: Mapping[str, Any]) -> str:
    """Return what the examination of a network in a ball says of a shift, with the key of the cell that made it."""
    from ...reports.trust import gates, too_few, verdict

    key = next((c["key"] for c in _plan(store).get("cells", ()) if _examines(c, key_of(model), norm)), "")
    if not key:
        return "trust    not examined: no trust cell is planned for this network and ball"
    if not store.has("cell", key):
        return f"trust    not examined: the trust cell {key[:12]} is not done"
    knowledge = about["knowledge"] if about["knowledge"] in KNOWN else "white_box"
    facts = store.cell(key)["facts"]["trust"]
    found = verdict(gates(facts), knowledge=knowledge, foreign=bool(about.get("chunk_coupled")))
    if not found.reasons and (few := too_few(facts)):
        return f"trust    not examined: {few} (cell {key[:12]})"
    return f"trust    {': '.join([found.word, *filter(None, ['; '.join(found.reasons)])])} (cell {key[:12]})"


def _examines(cell: Document, model: str, norm: str) -> bool:
    own = cell.get("norm") or str(cell["shift"]).partition("norm=")[2].rstrip(")")
    return bool(cell["family"] == TRUST and cell["model"] == model and own == norm)


def verdict_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what an examination comes to for each kind of attack, and on what it rests."""
    from ...reports.trust import gates, too_few, verdict

    found, few = gates(dict(facts)), too_few(facts)
    words: dict[str, str] = {text: verdict(found, knowledge=known).word for known, text in KNOWN.items()}
    words[FOREIGN] = verdict(found, foreign=True).word
    words = {text: f"not examined, {few}," if few and word == "trusted" else word for text, word in words.items()}
    by_word: dict[str, list[str]] = {}
    for text, word in words.items():
        by_word.setdefault(word, []).append(text)
    each = "; ".join(f"{word} ({', '.join(texts)})" for word, texts in by_word.items())
    eps = "none: it gets no sample right" if facts["eps"] is None else f"{facts['eps']:.6g} ({facts['norm']})"
    return [
        f"verdict  {next(iter(by_word)) if len(by_word) == 1 else each}",
        f"samples  {facts['n']} examined, {facts['right']} of them right without attack and attacked",
        f"eps      {eps}, the reference eps of the walks",
    ]


def examination(facts: Mapping[str, Any]) -> Table:
    """Return the gates of an examination of adversarial numbers, with their verdicts."""
    from ...reports.trust import gates

    table = Table(box=None)
    for heading in ("gate", "verdict", "value", "n", "threshold"):
        table.add_column(heading, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for gate in gates(dict(facts)):
        numbers = ["-" if x is None else f"{x:.4g}" for x in (gate.value, gate.threshold)]
        table.add_row(gate.name, gate.verdict, numbers[0], str(gate.n), numbers[1], gate.reason)
    return table


def to_do(facts: Mapping[str, Any]) -> list[str]:
    """Return for each raised gate what to do about it."""
    from ...reports.trust import gates

    raised = [gate for gate in gates(dict(facts)) if gate.verdict in ("broken", "suspect")]
    return [f"to do    {gate.name}: {gate.what_to_do}" for gate in raised]
