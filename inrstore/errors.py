"""One tree of exceptions; every error a user can cause names the file and the field."""

from __future__ import annotations


class InrstoreError(Exception):
    """Base class of every error this package raises on purpose."""


class CorruptChunkError(InrstoreError):
    """The bytes of a chunk are not a valid frame (specification section 2).

    Parameters
    ----------
    field : str
        Name of the field of the specification that is wrong.
    reason : str
        What is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"corrupt chunk: {field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.field, self.reason)


class UnsupportedVersionError(CorruptChunkError):
    """The frame is intact, but of a version or mode this reader does not know."""


class LimitExceededError(CorruptChunkError):
    """A number in the chunk asks for more than `inrstore.limits` allows."""


class FileTooLargeError(InrstoreError):
    """A file is larger than anything of its kind; it was not read."""


class ConfigurationError(InrstoreError, ValueError):
    """A codec or command option is unknown, missing or out of range."""


class MissingDependencyError(InrstoreError, ImportError):
    """An optional package is needed; the message says which extra to install."""


class SourceError(InrstoreError):
    """A source image cannot be read; the message names the file and the field."""


class StoreError(InrstoreError):
    """A store is incomplete, damaged or not an inrstore store."""


class DestinationExistsError(StoreError):
    """The destination exists already; nothing was touched."""


class WriteError(StoreError):
    """A file cannot be written; what is finished stays, and the same command goes on from there."""


class DestinationHeldError(StoreError):
    """Another process is writing to the destination; the message says which."""


class UnsupportedImageError(SourceError):
    """The file is intact, but an image of a kind that a store cannot hold; it can still be kept as a file."""


class QualityError(StoreError):
    """The stored voxels do not keep the quality that the store promises."""


class NotHeldError(QualityError):
    """No network keeps the target of a chunk, and nothing else was to hold it.

    Attributes
    ----------
    chunk : int
        Place in the list of chunks.
    reason : str
        What was tried, and how near it came.
    """

    def __init__(self, chunk: int, reason: str) -> None:
        super().__init__(f"chunk {chunk}: {reason}")
        self.chunk, self.reason = chunk, reason

    def __reduce__(self) -> tuple[type[NotHeldError], tuple[int, str]]:
        """Workers in other processes send it back."""
        return type(self), (self.chunk, self.reason)
