"""One table, and how it is written as CSV, Markdown and LaTeX; every text is escaped."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from .difference import Difference
from .estimate import Estimate
from .measure import Measure
from .number import shown, span

ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
MARKDOWN = {c: f"\\{c}" for c in "\\`*_{}[]<>#|$~&"}
LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": "--",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a table."""

    text: str
    """What readers see."""
    interval: str = ""
    """Its interval, as readers see it."""
    value: int | float | str | None = None
    """What files hold; the text where it is None and the column is one of words."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""
    invalid: bool = False
    """Whether a law was broken: the number is struck through."""
    note: str = ""
    """What the reader must know about it."""
    chip: str = ""
    """One word beside the text."""
    apart: bool = False
    """Whether it is shown and never compared."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    """Its name in files."""
    heading: str
    """What readers see."""
    unit: str = ""
    """Unit, as readers see it."""
    better: str = "neither"
    """Which direction is wished for."""
    words: bool = False
    """Whether it holds words."""
    bars: bool = False
    """Whether intervals are drawn as bars over the column's range."""

    @property
    def title(self) -> str:
        """Heading with unit and direction."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.heading}{unit}" + (f" {ARROWS[self.better]}" if self.better in ARROWS else "")


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    name: str
    """Name of its files."""
    caption: str
    """What it shows and how to read it."""
    columns: tuple[Column, ...]
    """Its columns."""
    rows: tuple[tuple[Entry, ...], ...]
    """Its rows."""

    @property
    def summary(self) -> str:
        """First sentence of the caption."""
        return self.caption.partition(". ")[0].removesuffix(".") + "."

    @property
    def explanation(self) -> str:
        """The caption after its first sentence."""
        return self.caption.partition(". ")[2]

    @property
    def notes(self) -> list[str]:
        """What readers must know about single entries, in the order of the rows."""
        return list(dict.fromkeys(entry.note for row in self.rows for entry in row if entry.note))

    def mark(self, entry: Entry) -> str:
        """Return the letter of an entry's note, empty without one."""
        return letter(self.notes.index(entry.note)) if entry.note else ""

    def range(self, column: int) -> tuple[float, float]:
        """Return the smallest and largest number of a column, intervals included."""
        entries = [row[column] for row in self.rows]
        found = [x for e in entries for x in (e.value, e.low, e.high) if isinstance(x, int | float)]
        return (min(found), max(found)) if found else (0.0, 0.0)

    def csv(self) -> str:
        """Return full precision, with the ends of intervals as columns of their own."""
        sink = io.StringIO()
        write = csv.writer(sink, lineterminator="\n").writerow
        wide = [any(row[i].low is not None for row in self.rows) for i in range(len(self.columns))]
        noted = bool(self.notes)
        heads: list[str] = []
        for column, ends in zip(self.columns, wide, strict=True):
            heads += [column.name, f"{column.name} low", f"{column.name} high"] if ends else [column.name]
        write([*heads, "notes"] if noted else heads)
        for row in self.rows:
            line: list[object] = []
            for entry, column, ends in zip(row, self.columns, wide, strict=True):
                plain = entry.text if column.words and entry.value is None else entry.value
                line += [plain, entry.low, entry.high] if ends else [plain]
            write([*line, "; ".join(dict.fromkeys(e.note for e in row if e.note))] if noted else line)
        return sink.getvalue()

    def markdown(self) -> str:
        """Return a pipe table with its caption and notes."""
        lines = [f"**{escaped(self.caption, MARKDOWN)}**", ""]
        lines.append("| " + " | ".join(escaped(column.title, MARKDOWN) for column in self.columns) + " |")
        lines.append("|" + "|".join("---" if column.words else "---:" for column in self.columns) + "|")
        for row in self.rows:
            lines.append("| " + " | ".join(self._markdown(entry) for entry in row) + " |")
        notes = [f"<sup>{letter(i)}</sup> {escaped(note, MARKDOWN)}  " for i, note in enumerate(self.notes)]
        return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"

    def _markdown(self, entry: Entry) -> str:
        text = escaped(entry.text, MARKDOWN)
        text = f"~~{text}~~" if entry.invalid else text
        text += f" {escaped(entry.interval, MARKDOWN)}" if entry.interval else ""
        return text + (f"<sup>{self.mark(entry)}</sup>" if entry.note else "")

    def latex(self) -> str:
        """Return a booktabs table; invalid numbers stand in brackets with a note."""
        lines = [
            "% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}.",
            "\\begin{table}\n\\centering\\small",
            f"\\caption{{{escaped(self.caption, LATEX)}}}",
            f"\\label{{tab:{self.name}}}",
            f"\\begin{{tabular}}{{{''.join('l' if column.words else 'r' for column in self.columns)}}}",
            "\\toprule",
            " & ".join(escaped(column.title, LATEX) for column in self.columns) + " \\\\",
            "\\midrule",
        ]
        for row in self.rows:
            lines.append(" & ".join(self._latex(entry) for entry in row) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
        for index, note in enumerate(self.notes):
            lines.append(f"\\par\\footnotesize\\textsuperscript{{{letter(index)}}} {escaped(note, LATEX)}")
        return "\n".join([*lines, "\\end{table}"]) + "\n"

    def _latex(self, entry: Entry) -> str:
        text = escaped(entry.text, LATEX)
        text = f"({text})" if entry.invalid else text
        text += f" {escaped(entry.interval, LATEX)}" if entry.interval else ""
        text += f"\\textsuperscript{{{self.mark(entry)}}}" if entry.note else ""
        # A row that begins with a bracket would be read as an argument of the line break before it.
        return f"{{}}{text}" if text.startswith("[") else text


def letter(index: int) -> str:
    """Return the mark of a note: a to z, then aa.

    >>> letter(0), letter(25), letter(26)
    ('a', 'z', 'aa')
    """
    head = letter(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("a") + index % 26)


def escaped(text: str, table: dict[str, str]) -> str:
    """Return a text on one line with every special character replaced.

    >>> escaped("50 % of a_b", LATEX)
    '50 \\\\% of a\\\\_b'
    """
    return "".join(table.get(character, character) for character in " ".join(text.split()))


def estimated(estimate: Estimate, measure: Measure) -> Entry:
    """Return an estimate as an entry; a number that does not exist is `-` with its reason."""
    if estimate.value is None:
        return Entry("-", note=estimate.reason or "no reason given")
    interval = span(estimate.low, estimate.high, measure.share, estimate.value)
    text = shown(estimate.value, measure.share)
    invalid, broken = estimate.status == "invalid", estimate.status == "broken"
    said = [f"{estimate.status}: {estimate.reason}" if invalid or broken else estimate.reason]
    said += [f"suspect: {estimate.doubt}"] if estimate.doubt else []
    return Entry(
        text,
        interval,
        estimate.value,
        estimate.low,
        estimate.high,
        invalid,
        "; ".join(x for x in said if x),
        "broken" if broken else "suspect" if estimate.doubt else "",
        invalid or broken,
    )


def differed(found: Difference, measure: Measure) -> Entry:
    """Return a difference as an entry."""
    if found.value is None:
        return Entry("-", note=found.reason)
    interval = span(found.low, found.high, measure.share, found.value, sign=True)
    text, chip = shown(found.value, measure.share, sign=True), "suspect" if found.doubt else ""
    return Entry(text, interval, found.value, found.low, found.high, note=found.doubt, chip=chip)


def measured(measure: Measure, heading: str | None = None, bars: bool = False) -> Column:
    """Return the column of a measure."""
    unit = "%" if measure.share else "" if measure.unit in {"1", "none", "", measure.heading} else measure.unit
    return Column(measure.name, measure.heading if heading is None else heading, unit, measure.better, bars=bars)


def words(*headings: str) -> tuple[Column, ...]:
    """Return columns of words."""
    return tuple(Column(heading.replace(" ", "_"), heading, words=True) for heading in headings)


def said(texts: Iterable[object]) -> tuple[Entry, ...]:
    """Return entries of words."""
    return tuple(Entry(str(text)) for text in texts)
