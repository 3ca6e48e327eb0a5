"""How entries are named: `elliptical(scaling=mean)` or `elliptical:scaling=mean`, lists, globs, `@file` and `all`."""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..attacks.shift import severity_value
from .error import BadInput, UnknownName

Setting = str | int | float | bool

COUNTS = frozenset(
    ("batch", "chunk", "draws", "epochs", "pairs", "passes", "patch", "queries", "restarts", "steps", "targets")
)
"""Settings of shifts and recipes of which there must be one at least."""


class Named(NamedTuple):
    """A name with the settings that were given, still as text."""

    name: str
    """Name of the entry."""
    given: Mapping[str, str]
    """Settings in the order given."""


def parsed(text: str) -> Named:
    """Read `name`, `name(setting=value, ...)` or `name:setting=value, ...`.

    >>> parsed("elliptical(scaling=mean)")
    Named(name='elliptical', given={'scaling': 'mean'})
    >>> parsed("elliptical:scaling=mean") == parsed("elliptical(scaling=mean)")
    True
    """
    match = re.fullmatch(r"\s*([^\s()=,]+?)\s*(?:\((.*)\)|:([^\s():=,]+=.*))?\s*", text, flags=re.DOTALL)
    if match is None:
        raise BadInput(f"cannot read '{text}'; write a name or name(setting=value,...)")
    given: dict[str, str] = {}
    for part in _cut(match[2] or match[3] or ""):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"cannot read '{part}' in '{text}'; write name(setting=value,...)")
        given[key.strip()] = value.strip().strip("\"'")
    return Named(match[1], given)


def split(text: str) -> list[str]:
    """Cut a list of entries at its commas; those between the settings of one entry do not count.

    >>> split("softmax, elliptical(scaling=mean,gradient=open)")
    ['softmax', 'elliptical(scaling=mean,gradient=open)']
    >>> split("elliptical:scaling=mean,gradient=open,softmax")
    ['elliptical:scaling=mean,gradient=open', 'softmax']
    """
    entries: list[str] = []
    for part in _cut(text):
        if entries and SETTING.match(part) and COLON.search(entries[-1]):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return entries


SETTING = re.compile(r"[^\s():=,@*?/]+\s*=")
"""A part of a list that is a further setting of the entry before it."""
COLON = re.compile(r"^[^\s()=,]+:[^\s():=,]+=")
"""An entry that gives its settings after a colon."""


def _cut(text: str) -> list[str]:
    """Cut at the commas that stand outside parentheses and quotes."""
    parts, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character == "(") - (character == ")") if not quote else 0
        if character == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part.strip() for part in [*parts, current] if part.strip()]


def resolved(
    kind: str,
    name: str,
    given: Mapping[str, str],
    defaults: Mapping[str, Setting],
    choices: Mapping[str, Sequence[Setting]],
) -> dict[str, Setting]:
    """Return every setting with its value, given ones read as the type of their default.

    Raises UnknownName for a setting that does not exist, BadInput for a value that is not allowed.
    """
    settings = dict(defaults)
    for key, text in given.items():
        if key not in defaults:
            allowed = ", ".join(defaults) or "none"
            raise UnknownName(f"setting of {kind} '{name}'", key, defaults, f"its settings: {allowed}")
        settings[key] = _read(f"{kind} '{name}', setting '{key}'", text, defaults[key])
        if key in choices and settings[key] not in choices[key]:
            allowed = ", ".join(map(str, choices[key]))
            raise BadInput(f"{kind} '{name}', setting '{key}': got '{text}', allowed are {allowed}")
        if fault := _fault(kind, key, settings[key], defaults[key]):
            raise BadInput(f"{kind} '{name}', setting '{key}': got '{text}', {fault}")
    return settings


def _fault(kind: str, key: str, value: Setting, default: Setting) -> str:
    """Return what is allowed where a value means nothing, an empty string where it means something.

    A setting whose default is below 1 is no such count; those of variants are their own affair.
    """
    if kind in ("shift", "recipe") and key in COUNTS and isinstance(value, int) and value < 1 <= int(default):
        return "allowed are whole numbers from 1"
    if kind == "recipe" and key == "eps" and not is_eps(value):
        return "allowed is a number from 0 to 1 such as 0.1 or 8/255"
    return ""


def is_eps(value: Setting) -> bool:
    """Whether a setting is a number from 0 to 1, or a fraction such as `8/255`."""
    try:
        return 0 <= severity_value(str(value)) <= 1
    except ValueError:
        return False


def _read(what: str, text: str, default: Setting) -> Setting:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        raise BadInput(f"{what}: got '{text}', a value like {str(default).lower()} is expected") from None


def label(name: str, settings: Mapping[str, Setting], defaults: Mapping[str, Setting]) -> str:
    """Return the shortest name that tells an entry: settings only where they differ from the default.

    >>> label("elliptical", {"scaling": "mean", "statistic": "mean"}, {"scaling": "max", "statistic": "mean"})
    'elliptical(scaling=mean)'
    """
    changed = ",".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in sorted(settings.items())
        if value != defaults[key]
    )
    return f"{name}({changed})" if changed else name


def expanded(kind: str, wanted: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the entries that a list asks for, in order and once each.

    Commas, repetition, globs over the known names, `@file` (one entry a line, # for comments) and `all`.
    """
    found: dict[str, None] = {}
    for text in wanted:
        for part in split(text):
            if part.startswith("@"):
                try:
                    lines = Path(part[1:]).read_text(encoding="utf-8").splitlines()
                except OSError as error:
                    raise BadInput(f"cannot read the list {part[1:]} ({error.strerror}); check the path") from None
                entries = [line.partition("#")[0].strip() for line in lines]
                found.update(dict.fromkeys(expanded(kind, [entry for entry in entries if entry], known)))
            elif part == "all":
                found.update(dict.fromkeys(known))
            elif re.search(r"[*?\[]", part) and "(" not in part:
                matches = fnmatch.filter(known, part)
                if not matches:
                    raise UnknownName(kind, part, known, f"attnbench ls {kind}s")
                found.update(dict.fromkeys(matches))
            else:
                found[part] = None
    return list(found)
