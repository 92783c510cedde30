"""Decode damaged chunks in a process that may die: what C libraries do with them must not end the fuzzer.

`Apart` is the fuzzer's side: it gives one case at a time to a process, takes the outcome, and starts another process
where one died or did not answer. `python -m tools.fuzz_case` is that process.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0
"""Seconds until a case counts as one that hangs."""


class Apart:
    """A process for cases; use it as a context.

    Parameters
    ----------
    command : sequence of str, optional
        Of the process.
    """

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "tools.fuzz_case"),
                 patience: float = PATIENCE) -> None:  # fmt: skip
        self._command, self._patience = command, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()
        self.started = 0
        self.memory: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._errors.close()

    @property
    def said(self) -> str:
        """What the processes wrote to their error streams, the end of it."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        return self._errors.read().decode(errors="replace")

    def ask(self, **case: Any) -> dict[str, Any]:
        """Return the answer: `outcome`, `seconds`, `memory`; and `error` where the case failed."""
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=self._errors, cwd=ROOT,
                                             env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
            self.started += 1
        process, begin = self._process, time.perf_counter()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(case).encode() + b"\n")
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], self._patience)[0]
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [process.stdout], b""
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            self.memory.append(answer["memory"])
            return answer
        self._end()
        what = f"died: {process.returncode}" if ready else f"no answer in {self._patience} s"
        return {"outcome": "FAILED: " + ("crash" if ready else "hang"), "seconds": time.perf_counter() - begin,
                "memory": 0, "error": f"{what}; {self.said[-200:]}"}  # fmt: skip

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
