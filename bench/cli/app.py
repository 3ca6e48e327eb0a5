"""The command line: what users type, and how a mistake is told."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ... import __version__
from ...results.store import StoreError
from ..error import AttnbenchError, BadInput

app = typer.Typer(
    name="attnbench",
    help="Does an attention mechanism make a transformer more robust, and keep its representations from collapsing?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 all there and valid, 1 some cells failed or are invalid, 2 usage or configuration, "
    "3 incomplete (the same command resumes), 5 a goal for speed was missed (perf --check).",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attnbench {__version__}")
        raise typer.Exit


def user_settings() -> dict[str, Any]:
    """Return the options of the user file, which stand between the protocol and the environment."""
    path = Path(typer.get_app_dir("attnbench")) / "options.toml"
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read ({error}); mend or delete it") from None


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Benchmark attention mechanisms for robustness and collapse."""
    options = user_settings()
    context.default_map = {command: {k.replace("-", "_"): v for k, v in options.items()} for command in COMMANDS}


COMMANDS = ("run", "plan", "status", "report", "ls", "show", "doctor", "check", "new", "perf")
for _module in ("execute", "listing", "show", "page", "checkup", "prove", "speed"):
    import_module(f".{_module}", __package__).attach(app)


def main() -> None:
    """Run one command; a user's mistake is one line without a traceback."""
    try:
        app()
    except (AttnbenchError, StoreError) as error:
        print(f"attnbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, AttnbenchError) else 2)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        if error.errno is None:
            raise
        where = f" at {error.filename}" if error.filename else ""
        print(f"attnbench: {error.strerror}{where}; mend it and run the same command again", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
