"""One page that opens from the disk: everything inside it, nothing fetched."""

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import failure
from .board import Board
from .chapter import Tables, chapters
from .environment import differing, environments
from .figure import Figure
from .method import definitions, intervals, meanings, settings
from .table import Table, letter
from .verdict import Verdict, verdict

OPENING = (("verdict", "Verdict"), ("noise", "Noise floor"), ("ranking", "Ranking"))
CLOSING = (("failures", "Failed cells"), ("method", "Method"), ("provenance", "Provenance"))


def inline(figure: Figure) -> Markup:
    """Return a figure's drawing for a page that holds several: no prolog, its own ids, its words for those who listen.

    The drawing was made by matplotlib, which escapes the names in it.
    """
    svg = figure.svg[figure.svg.index("<svg") :]
    for pattern in (r'(\bid=")', r'(href="#)', r"(url\(#)"):
        svg = re.sub(pattern, rf"\g<1>{figure.name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    label = Markup.escape(figure.alt)
    # A point of the drawing is as large in every figure, so that letters are.
    points = re.search(r'viewBox="0 0 ([0-9.]+)', svg)
    width = f' style="max-width:{1.45 * float(points[1]):.0f}px"' if points else ""
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"{width}', 1))


def _percent(table: Table, column: int, number: float) -> str:
    low, high = table.range(column)
    return f"{100 * (number - low) / (high - low):.1f}" if high > low else "50.0"


def page(board: Board, found: Tables, figures: dict[str, Figure]) -> str:
    """Return the page as HTML; every name in it is escaped."""
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evidence = chapters(found, figures)
    known = environments(board.run)
    protocol = board.run.protocol
    said: Verdict = verdict(board)
    words: dict[str, Any] = {
        "title": f"{protocol.get('name') or 'unnamed'}-{protocol.get('version', 0)}",
        "draft": bool(protocol.get("draft", True)),
        "question": protocol.get("question") or "",
        "complete": failure.summary(board.run),
        "done": board.run.planned and len(board.run.cells) == len(board.run.planned),
        "verdict": said,
        "tables": found,
        "figures": figures,
        "inline": inline,
        "percent": _percent,
        "style": Markup((here / "page.css").read_text(encoding="utf-8")),
        "settings": settings(board.run),
        "intervals": intervals(board),
        "meanings": meanings(board),
        "definitions": definitions(board.run),
        "environments": known,
        "differing": differing(known),
        "evidence": evidence,
        "sections": [*OPENING, *((c.anchor, c.short) for c in evidence), *CLOSING],
        "letter": letter,
    }
    return environment.get_template("page.html.j2").render(words) + "\n"
