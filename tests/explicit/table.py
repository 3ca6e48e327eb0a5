"""All rows of the table: every module beside this one says `CASES` for the variants of its kind."""

import importlib
import pkgutil
from pathlib import Path

from explicit.case import Case

CASES: list[Case] = [
    case
    for module in sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]))
    if module not in ("case", "table")
    for case in importlib.import_module(f"explicit.{module}").CASES
]
