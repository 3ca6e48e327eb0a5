"""How small a perturbation is enough, of the attacks that look for the smallest."""

from math import inf
from statistics import median

import pyarrow as pa


def smallest(outcomes: pa.Table, norm: str) -> list[str]:
    """Return in words the median size over samples of the smallest perturbation that fools, and how many never fell.

    For models whose answers do not vary. A sample has the size of its perturbation at the first severity at which it
    falls; errors without an attack have size 0.
    """
    if "norm" not in outcomes.column_names or not outcomes.num_rows:
        return []
    rows = outcomes.select(["sample", "rung", "severity", "correct", "norm"]).to_pylist()
    rows.sort(key=lambda row: row["rung"])
    sizes = {row["sample"]: inf for row in rows}
    for row in rows:
        if not row["correct"] and sizes[row["sample"]] == inf:
            sizes[row["sample"]] = row["norm"]
    largest, middle = rows[-1]["severity"], median(sizes.values())
    stood = sum(size == inf for size in sizes.values())
    half = f"above {largest}" if middle == inf else f"{middle:.3g}"
    return [f"smallest median {half} ({norm}) of {len(sizes)} samples, errors counted as 0; {stood} never fell"]
