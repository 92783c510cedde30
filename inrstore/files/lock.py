"""Who may write to a destination of this machine's file systems: an advisory lock that dies with its holder."""

from __future__ import annotations

import errno
import getpass
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from inrstore.errors import DestinationHeldError
from inrstore.files import durable
from inrstore.files.closing import Closing

_MAX_BYTES = 4096
_TRIES = 1000
"""How often a lock is tried whose file or folders vanish meanwhile."""


def holder() -> dict[str, Any]:
    """Return who this process is, for others to read."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in a bare container
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {"host": socket.gethostname(), "pid": os.getpid(), "user": user, "since": since}


def describe(who: dict[str, Any]) -> str:
    """Return a holder as text."""
    return f"{who.get('user')} on {who.get('host')}, process {who.get('pid')}, since {who.get('since')}"


class Lock(Closing):
    """An exclusive lock on a file; the system frees it when the process ends, however it ends.

    Parameters
    ----------
    path : Path
        The lock's file, made if needed.
    what : str
        What it guards, for the message.

    Raises
    ------
    DestinationHeldError
        If another process holds it; the message says who.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        for left in reversed(range(_TRIES)):
            try:
                durable.make_folder(path.parent)
                handle = durable.open_own(path)
            except FileNotFoundError:
                if left:
                    continue  # the holder before us removed the folder just now, or those above it
                raise DestinationHeldError(f"{what}: being written and removed by others again and again") from None
            try:
                _take(handle)
            except OSError as error:
                text = os.pread(handle, _MAX_BYTES, 0)
                os.close(handle)
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
                    raise
                raise DestinationHeldError(f"{what}: being written by {_read(text)}") from None
            if _same(handle, path):
                break
            os.close(handle)  # the holder before us removed this file; there may be a new one
        else:
            raise DestinationHeldError(f"{what}: being written and removed by others again and again")
        self._handle = handle
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder()).encode(), 0)

    def close(self) -> None:
        """Let others write; the file may be gone already."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _take(handle: int) -> None:
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same(handle: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def _read(text: bytes) -> str:
    try:
        return describe(json.loads(text))
    except (ValueError, AttributeError):
        return "another process"
