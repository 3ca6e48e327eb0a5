"""A whole run from the command line: resume, kill -9, processes, batches, a full disk, plugins, bad input."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults
Measured = Callable[[Path], dict[str, Any]]
PLUGIN = Path(__file__).parent.parent / "plugins" / "sharper.py"


def test_a_second_run_does_nothing(undisturbed: Path, tiny: Path, attnbench: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.json") if path.name != "run.json"}
    done = attnbench("run", tiny, "--out", undisturbed, cwd=undisturbed)
    assert done.returncode == 0
    assert "0 to do" in done.stdout
    assert "nothing to do" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_processes_and_batches_change_nothing(
    undisturbed: Path, tiny: Path, attnbench: Any, measured: Measured, tmp_path: Path
) -> None:
    done = attnbench("run", tiny, "--out", tmp_path / "run", "--jobs", "2", "--batch", "16", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured(tmp_path / "run") == measured(undisturbed)


def test_variants_meet_the_same_noise(undisturbed: Path) -> None:
    cells = [json.loads(path.read_text()) for path in (undisturbed / "cells").glob("*.json")]
    for level in ("1", "5"):
        digests = {
            fact["pixels_sha256"]
            for cell in cells
            if cell["cell"]["shift"]["name"] == "gaussian_noise"
            for fact in cell["facts"]["severities"]
            if fact["severity"] == level
        }
        assert len(digests) == 1, level


def test_kill_9_loses_nothing_and_changes_nothing(
    undisturbed: Path, tiny: Path, attnbench: Any, measured: Measured, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "attnbench.bench.cli.app", "run", str(tiny), "--out", str(run), "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(list((run / "cells").glob("*.json"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, "it finished before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while _workers(run):
        assert time.monotonic() < deadline, "workers outlive their engine"
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in (run / "cells").glob("*.json")}
    assert 3 <= len(finished) < len(measured(undisturbed))
    done = attnbench("run", tiny, "--out", run, "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert measured(run) == measured(undisturbed)
    assert not list(run.rglob(".*.tmp"))


def _workers(run: Path) -> list[int]:
    """Return the processes that hold the words of a worker of this run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            here = (path / "cwd").readlink()
        except OSError:
            continue
        if b"attnbench.bench.worker" in command and here == run.parent:
            found.append(int(path.name))
    return found


def test_a_budget_is_kept_and_resumed(tiny: Path, attnbench: Any, tmp_path: Path) -> None:
    done = attnbench("run", tiny, "--out", tmp_path / "run", "--max-hours", "0.0001", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the time that --max-hours allows is used up" in done.stdout
    done = attnbench("status", tiny, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 3


def test_an_interrupt_is_orderly(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "attnbench.bench.cli.app", "run", str(tiny), "--out", str(run), "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not list((run / "cells").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "stopped: interrupted" in out
    assert "the same command resumes" in out
    assert "Traceback" not in err
    assert not (run / "attempts").exists()


def starved(folder: Path, size: int) -> dict[str, str]:
    """Return an environment in which no file can grow beyond a size, as on a disk that fills up."""
    site = folder / "site"
    site.mkdir()
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))"
    (site / "sitecustomize.py").write_text(limit)
    return {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}


def test_a_disk_that_fills_costs_one_line_and_nothing_else(
    undisturbed: Path, tiny: Path, attnbench: Any, measured: Measured, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    enough_to_begin = (undisturbed / "run.json").stat().st_size + 100
    weights = [path.stat().st_size for path in (undisturbed / "checkpoints").glob("*.safetensors")]
    assert min(weights) > enough_to_begin
    env = starved(tmp_path, enough_to_begin)
    done = attnbench("run", tiny, "--out", run, "--jobs", "1", cwd=tmp_path, env=env)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.count("no space is left in") == 1
    assert "free some and run the same command again" in done.stdout
    assert "Traceback" not in done.stderr
    assert not list(run.rglob("*.safetensors"))
    done = attnbench("run", tiny, "--out", run, "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured(run) == measured(undisturbed)


def test_a_disk_that_is_full_from_the_start_is_told_in_one_line(tiny: Path, attnbench: Any, tmp_path: Path) -> None:
    done = attnbench("run", tiny, "--out", tmp_path / "run", cwd=tmp_path, env=starved(tmp_path, 1000))
    assert done.returncode == 3, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "free some space and run the same command again" in done.stderr


def test_a_checkpoint_of_the_wrong_shape_is_named(
    undisturbed: Path, tiny: Path, attnbench: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    model = next(m for m in json.loads((run / "run.json").read_text())["models"] if m["label"] == "softmax")
    path = run / "checkpoints" / f"{model['key']}.safetensors"
    tensors = load_file(path)
    tensors["head.weight"] = tensors["head.weight"][:, :-1].contiguous()
    save_file(tensors, path)
    for cell in (run / "cells").glob("*.json"):
        if json.loads(cell.read_text())["cell"]["model"]["variant"]["name"] == "softmax":
            cell.unlink()
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert done.returncode == 1
    assert "differs in shape: head.weight [10, 31] for [10, 32]" in done.stdout
    assert "delete the file and run the same command again" in done.stdout
    path.unlink()
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_what_is_deleted_is_made_again_and_what_is_changed_is_named(
    undisturbed: Path, tiny: Path, attnbench: Any, measured: Measured, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    lost, changed = sorted((run / "outcomes").glob("*.parquet"))[:2]
    lost.unlink()
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 to do" in done.stdout
    assert measured(run) == measured(undisturbed)
    changed.write_bytes(changed.read_bytes() + b"x")
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{changed.name} is not what its cell recorded; delete the file and run the same command" in done.stderr
    report = attnbench("report", run, "--to", tmp_path / "report", cwd=tmp_path)
    assert report.returncode == 0
    assert "is not what its cell recorded" in (tmp_path / "report" / "tables" / "missing.csv").read_text()
    changed.unlink()
    cell = run / "cells" / f"{changed.stem}.json"
    cell.write_text(cell.read_text().replace('"noise_seed": 0', '"noise_seed": 1'))
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert done.returncode in (0, 2)
    cell.unlink()
    assert attnbench("run", tiny, "--out", run, cwd=tmp_path).returncode == 0
    assert measured(run) == measured(undisturbed)


def test_advice_holds_however_often_it_was_not_taken(
    undisturbed: Path, tiny: Path, attnbench: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    models = {m["label"]: m["key"] for m in json.loads((run / "run.json").read_text())["models"]}
    path, other = (run / "checkpoints" / f"{models[label]}.safetensors" for label in ("softmax", "elliptical"))
    next(
        cell
        for cell in (run / "cells").glob("*.json")
        if json.loads(cell.read_text())["cell"]["model"]["variant"]["name"] == "softmax"
    ).unlink()
    whole = path.read_bytes()
    for content, fault in ((whole[:-9], "cannot be read"), (other.read_bytes(), "is not what its training left")):
        path.write_bytes(content)
        for _ in range(2):
            done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
            assert done.returncode == 1
            assert fault in done.stdout
    path.unlink()
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert path.read_bytes() == whole


def test_a_worker_that_dies_at_its_start_is_replaced(tiny: Path, attnbench: Any, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if 'attnbench.bench.worker' in sys.orig_argv and not mark.exists():\n"
        "    mark.touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "site")}
    arguments = ("run", tiny, "--out", tmp_path / "run", "--only", "softmax", "--jobs", "1")
    done = attnbench(*arguments, cwd=tmp_path, env=env)
    assert (tmp_path / "mark").exists()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_strangers_variant_joins_the_board_with_one_file(
    undisturbed: Path, tiny: Path, attnbench: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shutil.copy(PLUGIN, tmp_path)
    done = attnbench("run", tiny, "--out", run, "--variant", "sharper.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    labels = [row["label"] for row in json.loads((run / "run.json").read_text())["rows"]]
    assert labels == ["softmax", "elliptical", "softmax_matched", "sharper"]
    done = attnbench("run", tiny, "--out", run, cwd=tmp_path)
    assert "0 to do" in done.stdout
    kept = [row["label"] for row in json.loads((run / "run.json").read_text())["rows"]]
    assert kept == labels, "a row that was added stays on the board"
    done = attnbench("status", tiny, "--out", run, "--variant", "sharper.py", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["states"] == {"cached": len(labels) * 6 + 1}


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["neu*,l2"], ["neutreno", "l2"]),
        (["@list"], ["l2", "twicing"]),
        (["sharper.py(sharpness=3)"], ["sharper(sharpness=3.0)"]),
        (["elliptical(scaling=mean,gradient=open)", "quest"], ["elliptical(gradient=open,scaling=mean)", "quest"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_rows_are_added_by_every_kind_of_list(
    given: list[str], labels: list[str], tiny: Path, attnbench: Any, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("l2\ntwicing  # a comment\n")
    shutil.copy(PLUGIN, tmp_path)
    options = [option for text in given for option in ("--variant", text)]
    done = attnbench("plan", tiny, "--json", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = dict.fromkeys(node["row"] for node in json.loads(done.stdout)["nodes"])
    assert list(rows)[3:] == labels


FAILING = """
import os, torch
from attnbench.models.variants.softmax import SoftmaxAttention
from attnbench.models.variant import Variant

class Core(SoftmaxAttention):
    def forward(self, q, k, v, ctx):
        {body}
        return super().forward(q, k, v, ctx)

V = Variant(name="failing", core=Core, source="a test", version=1, summary="", formula="", family="f",
            attention_map="row_stochastic")
"""


@pytest.mark.parametrize(
    ("body", "options", "reason"),
    [
        ("raise ValueError('heads of unequal width')", (), "ValueError: heads of unequal width"),
        ("os.kill(os.getpid(), 9)", (), "the worker was killed (SIGKILL; perhaps out of memory)"),
        ("v = v * torch.nan", (), "FloatingPointError"),
        ("v = v[..., :-1]", (), "2, 16, 16] is expected: [batch, head, token, head_dim]"),
        ("__import__('time').sleep(600)", ("--timeout", "9"), "ran out of time (more than 9 s)"),
    ],
    ids=["exception", "crash", "nan", "shape", "time"],
)
def test_a_failure_stays_alone_and_has_its_reason(
    body: str, options: tuple[str, ...], reason: str, tiny: Path, attnbench: Any, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (tmp_path / "failing.py").write_text(FAILING.format(body=body))
    arguments = ("run", tiny, "--out", run, "--variant", "failing.py", *options)
    done = attnbench(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert reason in done.stdout
    assert "blocked: 6 nodes" in done.stdout or "blocked: 5 nodes" in done.stdout
    (attempt,) = (json.loads(path.read_text()) for path in (run / "attempts").rglob("*.json"))
    assert reason in attempt["reason"]
    done = attnbench("status", tiny, "--out", run, "--variant", "failing.py", "--json", cwd=tmp_path)
    assert done.returncode == 1 or attempt["transient"]
    again = attnbench(*arguments, cwd=tmp_path)
    count = len(list((run / "attempts").rglob("*.json")))
    assert count == (2 if attempt["transient"] else 1), again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tiny.toml", "--variant", "eliptical"], "did you mean 'elliptical'?"),
        (["run", "bad.toml"], "unknown key 'varaints'; did you mean 'variants'?"),
        (["run", "tiny.toml", "--variant", "raises.py"], "raises.py cannot be imported (RuntimeError: on import)"),
        (["run", "tiny.toml", "--variant", "gone.py"], "gone.py cannot be read"),
        (["run", "tiny.toml", "--data", "nowhere"], "cannot read the data folder nowhere"),
        (["run", "tiny.toml", "--out", "tiny.toml/run"], "name another with --out"),
        (["run", "smok"], "did you mean 'smoke'?"),
        (["run", "tiny.toml", "--jobs", "0"], "--jobs"),
        (["run", "tiny.toml", "--only", "softmx"], "unknown row 'softmx'; did you mean 'softmax'?"),
        (["ls", "varants"], "did you mean 'variants'?"),
        (["show", "abc"], "no cell starts with 'abc'"),
        (["report", "nowhere.toml"], "nowhere.toml"),
        (["status", "tiny.toml"], "start one with `attnbench run tiny.toml`"),
        (["frobnicate"], "frobnicate"),
        (["run", "tiny.toml", "--device", "cudaa"], "device 'cudaa' cannot be used here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line(
    arguments: list[str], message: str, tiny: Path, attnbench: Any, tmp_path: Path
) -> None:
    text = tiny.read_text()
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "bad.toml").write_text(text.replace("variants =", "varaints ="))
    (tmp_path / "raises.py").write_text("raise RuntimeError('on import')\n" + PLUGIN.read_text())
    done = attnbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(("attnbench: ", "Usage: "))
    if done.stderr.startswith("attnbench: "):
        assert len(done.stderr.strip().splitlines()) == 1


def test_two_runs_do_not_write_in_one_folder(tiny: Path, attnbench: Any, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = attnbench("run", tiny, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "another run is writing in" in done.stderr


def test_show_status_plan_and_report_read_a_run(undisturbed: Path, tiny: Path, attnbench: Any, tmp_path: Path) -> None:
    key = next((undisturbed / "cells").glob("*.json")).stem
    done = attnbench("show", key[:12], "--out", undisturbed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert key in done.stdout
    done = attnbench("plan", tiny, "--out", undisturbed, "--json", cwd=tmp_path)
    assert {node["state"] for node in json.loads(done.stdout)["nodes"]} == {"cached"}
    assert attnbench("status", tiny, "--out", undisturbed, cwd=tmp_path).returncode == 0
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny-1").symlink_to(undisturbed)
    for name in ("tiny-1", "runs/tiny-1", tiny):
        done = attnbench("report", name, "--to", tmp_path / "report", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = attnbench("report", undisturbed, "--to", tmp_path / "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "index.html").exists()


def test_options_have_an_order(tiny: Path, attnbench: Any, tmp_path: Path, undisturbed: Path) -> None:
    (tmp_path / "config" / "attnbench").mkdir(parents=True)
    (tmp_path / "config" / "attnbench" / "options.toml").write_text(f'out = "{tmp_path / "from_file"}"\n')
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}

    def out(*arguments: str, **more: str) -> str:
        done = attnbench("plan", tiny, "--json", *arguments, cwd=tmp_path, env={**env, **more})
        assert done.returncode == 0, done.stderr
        return str(Path(json.loads(done.stdout)["out"]).name)

    assert out() == "from_file"
    assert out(ATTNBENCH_OUT=str(tmp_path / "from_env")) == "from_env"
    assert out("--out", str(tmp_path / "from_line"), ATTNBENCH_OUT=str(tmp_path / "from_env")) == "from_line"
