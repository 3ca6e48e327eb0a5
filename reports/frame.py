"""A run as two tidy tables: one row a record, and one row a sample and severity."""

import pandas as pd
import pyarrow as pa

from .run import Document, Run

COLUMNS = [
    *("label", "variant", "role", "variant_family", "fold", "training_seed"),
    *("shift", "shift_family", "severity", "severity_unit", "metric", "point", "layer"),
    *("value", "deviation", "n", "unit", "better", "status", "reason", "key"),
]
"""Columns of the table of records."""

WHERE = ["label", "fold", "training_seed", "shift", "severity", "metric", "point", "layer"]
"""Columns that tell one record from another."""

PLACE = ["label", "fold", "training_seed", "shift", "shift_family"]
"""Columns that say which cell a sample's outcome belongs to."""


def _place(cell: Document) -> Document:
    return {
        "label": cell["label"],
        "fold": int(cell["fold"]),
        "training_seed": int(cell["training_seed"]),
        "shift": cell["shift"],
        "shift_family": cell["family"],
    }


def records(run: Run) -> pd.DataFrame:
    """Return one row a record, in the plan's order.

    A record without a severity takes that of its cell where the cell has one only. A missing layer is -1.
    """
    rows = {row["label"]: row for row in run.rows}
    found = []
    for cell in run.planned:
        row = rows.get(cell["label"], {})
        severities = cell.get("severities") or [""]
        about = {
            **_place(cell),
            "variant": row.get("variant", ""),
            "role": row.get("role", ""),
            "variant_family": row.get("family", ""),
            "severity_unit": cell.get("unit", ""),
            "key": cell["key"],
        }
        for record in run.cells.get(cell["key"], {}).get("records") or []:
            entry = {**about, **record}
            entry["severity"] = record.get("severity") or (severities[0] if len(severities) == 1 else "")
            entry["layer"] = -1 if record.get("layer") is None else int(record["layer"])
            found.append({column: entry.get(column) for column in COLUMNS})
    return typed(found)


def typed(rows: list[Document]) -> pd.DataFrame:
    """Return rows of the table of records, a missing entry as null."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    kinds = {"fold": "int64", "training_seed": "int64", "layer": "int64", "n": "int64", "value": "float64"}
    found: pd.DataFrame = frame.astype({**kinds, "deviation": "float64"})
    return found


def outcomes(run: Run) -> pd.DataFrame:
    """Return one row a sample and severity with what `docs/store.md` lists, in the plan's order."""
    parts: list[pa.Table] = []
    for cell in run.planned:
        table = run.outcomes(cell["key"]) if cell["key"] in run.cells else None
        if table is not None and table.num_rows:
            for column, value in _place(cell).items():
                table = table.append_column(column, pa.repeat(value, table.num_rows))
            parts.append(table)
    if not parts:
        return pd.DataFrame(columns=[*PLACE, "sample", "severity", "correct"])
    whole: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    numbers = [name for name in whole.columns if name in {"correct", "correct_first", "norm"} or "@" in name]
    return whole.astype(dict.fromkeys(numbers, "float64"))
