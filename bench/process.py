"""One worker process as the engine sees it: what it was given, what it says, how it ended."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .node import Node

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
Message = dict[str, Any]
Events = queue.SimpleQueue[tuple["Process", Message | None]]
"""What processes say, in the order in which it arrives; None when a process has ended."""


class Process:
    """One worker process and the thread that reads its answers."""

    def __init__(self, setup: Mapping[str, Any], events: Events) -> None:
        self.words: deque[str] = deque(maxlen=60)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__.rpartition(".")[0] + ".worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **THREADS},
            start_new_session=True,
        )
        self.group: list[Node] = []
        self.current: Node | None = None
        self.since = 0.0
        self.killed = ""
        self.ready = False
        self._write(setup)
        self.ears = threading.Thread(target=self._remember, daemon=True)
        self.ears.start()
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(line) + "\n")
                self.process.stdin.flush()

    def _read(self, events: Events) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                try:
                    events.put((self, json.loads(line)))
                except ValueError:
                    break  # A process that was killed while it wrote: what follows is its end.
        self.process.wait()
        self.ears.join(timeout=1)
        events.put((self, None))

    def _remember(self) -> None:
        if self.process.stderr is not None:
            self.words.extend(self.process.stderr)

    def give(self, group: list[Node]) -> None:
        """Hand over a group."""
        self.group = group
        self._write({"group": [asdict(node) for node in group]})

    def kill(self, reason: str) -> None:
        """End the process at once; `reason` becomes that of its current node."""
        self.killed = reason
        self.process.kill()

    def close(self) -> None:
        """End the process and forget it."""
        self.process.kill()
        self.process.wait()
        self.ears.join(timeout=1)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def epitaph(self) -> str:
        """Say how the process ended."""
        code = self.process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"the worker was killed ({name}{'; perhaps out of memory' if name == 'SIGKILL' else ''})"
        return f"the worker ended with exit code {code}"

    def last_words(self) -> str:
        """Return the end of what the process wrote to standard error."""
        return "".join(self.words)[-4000:]
