"""The name of a piece of work: sha256 of the canonical JSON of everything that can change its numbers."""

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785


def key_of(specification: Mapping[str, Any]) -> str:
    """Return the sha256, in hexadecimal, of the canonical JSON (RFC 8785) of a specification.

    >>> key_of({"b": 1, "a": "x"}) == key_of({"a": "x", "b": 1})
    True
    """
    return hashlib.sha256(rfc8785.dumps(plain(specification))).hexdigest()


def plain(value: Any) -> Any:
    """Return a value with its mappings as dicts and its sequences as lists, ready for JSON."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
