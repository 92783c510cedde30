"""Where a store is written: begin or take up a conversion, tidy up after one; files that appear when they are whole.

Beside the destination lies `<destination>.partial` with the files so far, a journal of the chunks that are
finished, and who is writing. A conversion that dies is taken up there by the same command.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inrstore import files
from inrstore.files import durable
from inrstore.store import partial_local
from inrstore.store.partial import PARTIAL, Partial, explain, refuse_existing


def open_partial(destination: str, job: Mapping[str, Any]) -> Partial:
    """Begin to write a store, or take up what an earlier run of the same job left.

    Parameters
    ----------
    destination : str
        Path or URL of the store.
    job : mapping
        What decides the bytes: source, quality, effort, versions. JSON.

    Raises
    ------
    DestinationExistsError
        If the store exists.
    DestinationHeldError
        If another process is writing it.
    StoreError
        If what is there is of another job; the message says what differs.
    """
    if files.is_url(destination):
        from inrstore.store.partial_remote import RemotePartial

        return RemotePartial(destination, job)
    return partial_local.LocalPartial(Path(destination), job)


def sweep_published(destination: str) -> bool:
    """Remove what is left beside a store that was published by a run that died right then.

    Returns
    -------
    bool
        Whether there was anything.
    """
    if files.is_url(destination):
        from inrstore.store.partial_remote import sweep_published as sweep

        return sweep(destination)
    return partial_local.sweep_published(destination)


class PartialFile:
    """A file that gets its name when it is complete; the counterpart of a `Partial` for exports.

    Parameters
    ----------
    destination : Path
        Where the file is to be; must not exist.
    """

    def __init__(self, destination: Path) -> None:
        refuse_existing(destination)
        self.destination = destination
        self.path = destination.with_name(f"{destination.name}{PARTIAL}-{secrets.token_hex(4)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def commit(self) -> None:
        """Give the file its name; an existing one is never replaced."""
        try:
            durable.sync(self.path)
            refuse_existing(self.destination)
            durable.rename(self.path, self.destination)
        except OSError as error:
            raise explain(self.destination, error) from error
