"""The report that a researcher would send to a colleague, made from the files of a run alone."""

from contextlib import suppress
from pathlib import Path

from ..results.store import publish, strict_json
from .state import STATE, current, fingerprint, state


def default_destination(run_folder: Path) -> Path:
    """Return the folder in which a run's report lies."""
    return run_folder / "report"


def is_current(run_folder: Path, destination: Path | None = None) -> bool:
    """Whether the report was made from exactly the files that lie in the run's folder."""
    return current(run_folder, destination or default_destination(run_folder))


def write(run_folder: Path, destination: Path | None = None) -> Path:
    """Write page, tables, figures and tidy records, and return the path of the page.

    Raises StoreError where there is no run. Files of an earlier report are replaced, others in the folder are left.
    """
    # Imported here so that asking whether a report is current stays fast.
    from .board import board
    from .chapter import tables
    from .gallery import gallery
    from .page import page
    from .run import load

    target = destination or default_destination(run_folder)
    known = fingerprint(run_folder) if (run_folder / "run.json").exists() else ""
    read = board(load(run_folder))
    found, figures = tables(read), gallery(read)
    files: dict[str, bytes] = {}
    for table in found.all():
        files[f"tables/{table.name}.csv"] = table.csv().encode()
        files[f"tables/{table.name}.md"] = table.markdown().encode()
        files[f"tables/{table.name}.tex"] = table.latex().encode()
    for figure in figures.values():
        files[f"figures/{figure.name}.svg"] = figure.svg.encode()
        files[f"figures/{figure.name}.png"] = figure.png
        files[f"figures/{figure.name}.csv"] = figure.data.to_csv(index=False, lineterminator="\n").encode()
    files["records.parquet"] = read.evidence.records.to_parquet(index=False)
    files["index.html"] = page(read, found, figures).encode()
    _clear(target, set(files))
    for name, data in files.items():
        publish(target / name, data)
    publish(target / STATE, strict_json({"schema": 1, "fingerprint": known, "files": sorted(files)}))
    return target / "index.html"


def _clear(target: Path, kept: set[str]) -> None:
    """Remove what an earlier report wrote and this one does not, and the mark that says the report is whole."""
    known = state(target).get("files")
    inside = target.resolve()
    for name in known if isinstance(known, list) else []:
        path = (target / str(name)).resolve()
        if name not in kept and path.is_relative_to(inside):
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        (target / STATE).unlink()
