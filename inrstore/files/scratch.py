"""A folder for files that must not outlive their use: removed at its end, at a signal, and else by the next one.

A process that is killed leaves its folder. Whoever makes a folder later removes those that are provably of this package
and of a dead process: a name of ours, owned by this user, with a mark inside that names the folder and this machine,
was locked for as long as its process lived, and is not locked now.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

_PREFIX = "inrstore-scratch-"
_NAME = re.compile(re.escape(_PREFIX) + "[0-9a-f]{32}")
_MARK = "mark"
_MAX_MARK = 4096
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def scratch() -> Iterator[tuple[Path, int]]:
    """Give an empty folder for temporary files, apart from a mark; it is removed at the end.

    SIGTERM and SIGHUP end the process as an exception does, so that the folder goes, too. That is so in the main
    thread, and unless the program handles them itself.

    Yields
    ------
    Path
        The folder, which nobody else can read.
    int
        A file descriptor that shows others that it is in use. A program that works in the folder should inherit it.
    """
    import fcntl

    remove_dead()
    with _ended_by_signals():
        folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(16)}"
        folder.mkdir(0o700)  # fails if something has the name, so all that is in it is ours
        handle = -1
        try:
            handle = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(handle, json.dumps(_mark(folder.name)).encode())
            yield folder, handle
        finally:
            _remove(folder)
            if handle >= 0:
                os.close(handle)


def remove_dead() -> list[Path]:
    """Remove the folders that dead processes left; return them. What cannot be removed, or is in doubt, stays."""
    removed = []
    with suppress(OSError):
        for entry in list(os.scandir(tempfile.gettempdir())):
            if _NAME.fullmatch(entry.name):
                with suppress(OSError, ValueError):
                    if _remove_if_dead(Path(entry.path)):
                        removed.append(Path(entry.path))
    return removed


def _remove_if_dead(folder: Path) -> bool:
    import fcntl

    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        return False
    handle = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mark = os.fstat(handle)
        if not stat.S_ISREG(mark.st_mode) or mark.st_uid != os.getuid() or mark.st_nlink != 1:
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError while its process lives
        said = json.loads(os.pread(handle, _MAX_MARK, 0))
        if not isinstance(said, dict) or not _is_dead(said, folder.name):
            return False
        _remove(folder)
        return True
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a folder, the mark last: if that is interrupted, the next one can still tell whose it is."""
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != _MARK:
            os.unlink(entry.path)
    with suppress(FileNotFoundError):
        (folder / _MARK).unlink()
    folder.rmdir()


def _mark(name: str) -> dict[str, Any]:
    """Return what a mark says."""
    boot = ""
    with suppress(OSError):
        boot = _BOOT.read_text().strip()
    return {"scratch": name, "host": socket.gethostname(), "boot": boot, "pid": os.getpid()}


def _is_dead(said: dict[str, Any], name: str) -> bool:
    """Return whether a mark that nobody holds is that of a folder, and its process is not there any more."""
    own = _mark(name)
    if said.keys() != own.keys() or said["scratch"] != name or said["host"] != own["host"]:
        return False
    # A file system whose locks do not hold still does not let a living process lose its folder.
    return said["boot"] != own["boot"] or not _lives(said["pid"])


def _lives(pid: Any) -> bool:
    if type(pid) is not int or not 0 < pid < 1 << 31:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals that end the process do it by an exception, where nothing else handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
