"""Pages and tables that a command writes for people: which earlier ones may be replaced."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from inrstore.errors import ConfigurationError

GENERATOR = b"<meta name=generator content=inrstore>"
"""In the head of every page: what lacks it is somebody else's, and not replaced."""

_HEAD_BYTES = 4096


def check_replaceable(path: Path, mark: bytes = GENERATOR) -> None:
    """Raise ConfigurationError if a report would replace something that is no report of this program.

    Parameters
    ----------
    path : Path
    mark : bytes
        What stands in the first 4 kB of every such report.
    """
    if not os.path.lexists(path):
        return
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                if mark in file.read(_HEAD_BYTES):
                    return
    raise ConfigurationError(f"{path}: exists already and is no report of this program; choose another name")
