"""Tables in Markdown from plain words, with the links that papers and repositories deserve."""

import re
from collections.abc import Iterable, Mapping, Sequence

Setting = str | int | float | bool


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown already.

    >>> print(table(("a", "b"), [("1", "2")]), end="")
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [headings, *rows]
    written = [f"| {' | '.join(line)} |" for line in lines]
    written.insert(1, "|" + "---|" * len(headings))
    return "\n".join(written) + "\n"


def words(text: str) -> str:
    r"""Write plain words as Markdown in a cell; papers and repositories become links.

    >>> words("|a| * <b>")
    '\\|a\\| \\* &lt;b>'
    >>> words("arXiv:2406.13770")
    '[arXiv:2406.13770](https://arxiv.org/abs/2406.13770)'
    """
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;"))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[\g<0>](https://arxiv.org/abs/\1)", text)
    return re.sub(r"github\.com/[\w-]+/[\w.-]*\w", r"[\g<0>](https://\g<0>)", text)


def code(text: str) -> str:
    r"""Write text as code in a cell, where a bar would end the cell even inside code.

    >>> code("|q - k|^2")
    '`\\|q - k\\|^2`'
    """
    return f"`{' '.join(text.split()).replace('|', chr(92) + '|')}`"


def setting_texts(defaults: Mapping[str, Setting], choices: Mapping[str, Sequence[Setting]]) -> list[str]:
    """Return each setting with its default, a closed list with the default in front.

    >>> setting_texts({"norm": "linf", "steps": 20}, {"norm": ("l2", "linf")})
    ['norm=linf or l2', 'steps=20']
    """
    found = []
    for name, default in defaults.items():
        others = [value for value in choices.get(name, ()) if value != default]
        found.append(f"{name}={' or '.join(map(text_of, (default, *others)))}")
    return found


def text_of(value: Setting) -> str:
    """Return a setting as users write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
