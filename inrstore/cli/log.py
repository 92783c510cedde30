"""What a command did, line by line, in a file: the option --log of commands that work for long."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from inrstore.cli.output import printable
from inrstore.errors import WriteError

LogFile = Annotated[
    str | None,
    typer.Option("--log", metavar="FILE", help="Append what is done, a line each, with the time.", show_default=False),
]


class _Line(logging.Formatter):
    """A line for a message, whatever is in it: a name may hold line breaks and control characters."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        text = printable(record.getMessage())
        return f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%SZ')} {record.levelname.lower()} {text}"


@contextmanager
def logged(path: str | None) -> Iterator[None]:
    """Append to a file what the package logs while a command runs, and the command itself.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    if path is None:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error
    handler.setFormatter(_Line())
    logger = logging.getLogger("inrstore")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.info("begin: %s", " ".join(sys.argv[1:]))
    try:
        yield
        logger.info("end")
    except BaseException as error:
        logger.error("end: %s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
