"""An archive in Python: its images as a table, selected by what they are, each opened when it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from inrstore.archive.images import ImageRecord, read_images
from inrstore.archive.manifest import check_inside, path_of
from inrstore.archive.rules import matches
from inrstore.errors import ConfigurationError, StoreError
from inrstore.files import Place
from inrstore.store.container import seal_of
from inrstore.views import backend

if TYPE_CHECKING:
    import xarray


class ArchiveImage:
    """An image of an archive.

    Parameters
    ----------
    place : Place
        The archive.
    record : ImageRecord
        What the archive knows of it.

    Attributes
    ----------
    record : ImageRecord
    path : str
        Path or URL of the store, for `inrstore.open`, `inrstore.export` and zarr.
    """

    def __init__(self, place: Place, record: ImageRecord) -> None:
        check_inside(place, record.path)
        self.record, self.path = record, path_of(place, record.path)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.record.shape)) or "unknown shape"
        return f"<{self.record.name}: {shape}, {self.record.stored_bytes:,} bytes>"

    def open(self, **options: Any) -> xarray.Dataset:
        """Open it as `inrstore.open` does, with the same options.

        Raises
        ------
        StoreError
            If there is another store in its place than the archive wrote.
        """
        if seal_of(self.path) != self.record.seal:
            raise StoreError(f"{self.path}: is not the store that the archive wrote: its seal differs")
        return backend.open(self.path, **options)


class Archive(Sequence[ArchiveImage]):
    """The images of an archive, or some of them.

    Parameters
    ----------
    place : Place
    records : sequence of ImageRecord
    """

    def __init__(self, place: Place, records: Sequence[ImageRecord]) -> None:
        self._place, self._records = place, tuple(records)
        self.name = place.name

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        """Return an image by its number or path, or some as an archive by a slice."""
        if isinstance(index, str):
            for record in self._records:
                if index in (record.path, record.name):
                    return ArchiveImage(self._place, record)
            raise KeyError(f"{self.name}: no image {index!r}")
        if isinstance(index, slice):
            return Archive(self._place, self._records[index])
        return ArchiveImage(self._place, self._records[index])

    def __iter__(self) -> Iterator[ArchiveImage]:
        return (ArchiveImage(self._place, record) for record in self._records)

    def __repr__(self) -> str:
        size = sum(record.stored_bytes for record in self._records)
        return f"<{len(self)} images of {self.name}, {size:,} bytes>"

    def select(self, path: str = "", **wanted: Any) -> Archive:
        """Return the images that fit.

        Parameters
        ----------
        path : str
            A glob on paths in the archive, by the names that images have in the source; "" for any.
        **wanted
            Entities and fields and what they are: subject="01", suffix="dwi", task=["rest", "nback"], dtype="int16".

        Raises
        ------
        ConfigurationError
            For a name that no image of the archive has.
        """
        known = {name for record in self._records for name in record.entities} | set(ImageRecord.__dataclass_fields__)
        for name in wanted:
            if self._records and name not in known:
                raise ConfigurationError(
                    f"{name}: no image of {self.name} has it; there are {', '.join(sorted(known))}"
                )
        found = [record for record in self._records if _fits(record, path, wanted)]
        return Archive(self._place, found)

    def values(self, name: str) -> list[Any]:
        """Return what an entity or field is in any image, sorted: `values("subject")`."""
        return sorted({value for record in self._records if (value := record.get(name)) != ""})

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each image; see `inrstore.archive.images.ImageRecord`."""
        return [record.to_dict() for record in self._records]

    def table(self) -> Any:
        """Return the records as a pandas DataFrame, or as a list where pandas is not installed."""
        if find_spec("pandas") is None:
            return self.records()
        return import_module("pandas").DataFrame(self.records(), columns=None if self._records else ["path"])


def _fits(record: ImageRecord, path: str, wanted: dict[str, Any]) -> bool:
    if path and not (matches(path, record.name) or matches(path, record.path)):
        return False
    for name, value in wanted.items():
        values = value if isinstance(value, list | tuple | set | frozenset) else [value]
        if not any(record.get(name) == one or str(record.get(name)) == str(one) for one in values):
            return False
    return True


def open_archive(archive: str | os.PathLike[str]) -> Archive:
    """Open an archive: a sequence of its images, which are opened when they are asked for.

    Parameters
    ----------
    archive : path-like
        Path or URL.

    Returns
    -------
    Archive

    Raises
    ------
    StoreError
        If it is no archive, or its record is damaged.

    Examples
    --------
    >>> archive = inrstore.open_archive("archive")            # doctest: +SKIP
    >>> for image in archive.select(suffix="dwi"):            # doctest: +SKIP
    ...     print(image.record.entities["subject"], image.open().image.mean("t"))
    """
    return Archive(*read_images(os.fspath(archive)))
