"""Whether compiled loops serve: they are loaded late, by a thread, and never waited for long.

numpy works until a process has done so much that loading pays. Then a thread loads the loops of a mode, which
takes some tenths of a second, or compiles them where no cache holds them, which takes some ten seconds once on a
machine; what does not have them soon goes on with numpy. Both give the same bits. A process that ends before
they are compiled waits for them, so that the next one finds them.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

VARIABLE = "INRSTORE_COMPILED"
"""0: never; 1: always, whatever the time it takes; else as this module says."""
_ENOUGH = {"transform": 1 << 22, "predictor": 1 << 21, "network": 1 << 21, "transform_encode": 1 << 22,
           "predictor_encode": 1 << 21}  # fmt: skip
"""Values of a process from which loading pays: numpy takes about as long for so many, which encoders
count several times."""
_PATIENCE = 1.0
"""Seconds that chunks wait from the start of loading: enough for a warm cache."""


class _Loops:
    """The loops of a mode: a module, or that there is none."""

    def __init__(self, name: str) -> None:
        self._name, self._enough = name, _ENOUGH[name]
        self._seen, self._since = 0, 0.0
        self._lock = threading.Lock()
        self._given_up = False
        self._thread: threading.Thread | None = None
        self.module: ModuleType | None = None

    def get(self, values: int, wait: bool) -> ModuleType | None:
        """Return the module if it is there soon, or, with `wait`, after any time."""
        if self.module is not None or self._given_up:
            return self.module
        with self._lock:
            self._seen += values
            if self._thread is None:
                if self._seen < self._enough and not wait:
                    return None
                self._start()
            thread = self._thread
        if thread is not None:
            thread.join(None if wait else max(0.0, self._since + _PATIENCE - time.monotonic()))
        return self.module

    def _start(self) -> None:
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._give_up)
        thread = threading.Thread(target=self._load, name=f"inrstore {self._name}")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end
            return
        self._thread, self._since = thread, time.monotonic()

    def _load(self) -> None:
        try:
            self.module = import_module(f"{__package__}.{self._name}")
        except Exception:  # whatever it is, numpy does the same
            self.module = None

    def _give_up(self) -> None:
        """In a forked process, the thread that was loading is not there, but what it had locked is."""
        self._lock = threading.Lock()
        self._given_up = self.module is None


_loops = {name: _Loops(name) for name in _ENOUGH}
_wanted: bool | None = None


@contextmanager
def use(wanted: bool | None) -> Iterator[None]:
    """Have compiled loops serve in this process never, always, or (None) as the environment says, for a while."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


def installed() -> bool:
    """Return whether there is a compiler, and it compiles: loops that it leaves to Python would be slow and wrap."""
    off = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    return not off and importlib.util.find_spec("numba") is not None


def hindrance() -> str | None:
    """Return why compiled loops do not serve, None if they do: all are loaded to see it."""
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE} = 0"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    if not installed():
        return "NUMBA_DISABLE_JIT is set"
    for name in _loops:
        try:
            import_module(f"{__package__}.{name}")
        except Exception as error:  # whatever it is, numpy does the same
            return f"{name}: {' '.join(str(error).split()) or type(error).__name__}"
    return None


def find(name: str, values: int) -> ModuleType | None:
    """Return the compiled loops of a mode for a chunk of so many values; None where numpy serves.

    Parameters
    ----------
    name : {"transform", "predictor", "network", "transform_encode", "predictor_encode"}
        A module of this package.
    values : int
    """
    wanted = _wanted
    if wanted is None:
        wanted = {"0": False, "1": True}.get(os.environ.get(VARIABLE, ""))
    if wanted is False or not installed():
        return None
    return _loops[name].get(values, wanted is True)
