"""A store or an archive as a file system of fsspec, `inr://`, for whatever opens files by fsspec: pandas, dask."""

from __future__ import annotations

import io
from typing import Any

from fsspec import AbstractFileSystem

from inrstore.errors import ConfigurationError
from inrstore.views.vfs import Vfs


class InrFileSystem(AbstractFileSystem):  # type: ignore[misc]  # it has no types
    """The files that a store or an archive was made from, read only; those of `inrstore.views.vfs.Vfs`.

    Parameters
    ----------
    fo : str
        Path or URL of the store or archive. In a chained URL what follows the colons,
        `inr://sub-01/anat/sub-01_T1w.nii::/data/archive`.
    gz : bool
        As in `Vfs`.
    target_protocol : str, optional
        What fsspec took `fo` for.
    **options
        Of every file system of fsspec.

    Raises
    ------
    StoreError
        As `Vfs`.
    """

    protocol = "inr"
    root_marker = ""

    def __init__(self, fo: str = "", gz: bool = False, target_protocol: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if not fo:
            raise ConfigurationError("inr: say which archive: inr://path::/data/archive, or fo='/data/archive'")
        if target_protocol not in (None, "file", "local") and "://" not in fo:
            fo = f"{target_protocol}://{fo}"
        self.vfs = Vfs(fo.removeprefix("file://"), gz=gz)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file or folder."""
        entry = self.vfs.entry(self._strip_protocol(path))
        return self._info(entry.path, entry.is_folder)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder; of a file that file."""
        path = self._strip_protocol(path)
        entry = self.vfs.entry(path)
        found = self.vfs.entries(path) if entry.is_folder else [entry]
        return [self._info(one.path, one.is_folder) if detail else one.path for one in found]

    def _info(self, path: str, is_folder: bool) -> dict[str, Any]:
        size = 0 if is_folder else self.vfs.size(path)
        return {"name": path, "size": size, "type": "directory" if is_folder else "file"}

    def created(self, path: str) -> Any:
        """Return when the archive was completed."""
        return self.modified(path)

    def modified(self, path: str) -> Any:
        """Return when the archive was completed."""
        import datetime

        return datetime.datetime.fromtimestamp(self.vfs.time, datetime.UTC)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes of a file, or some of them."""
        with self.vfs.open(self._strip_protocol(path)) as file:
            first, last, _step = slice(start, end).indices(file.size)
            return file.read_at(first, last - first)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> io.BufferedReader:
        if mode not in ("rb", "r"):
            raise OSError(f"{path}: a file of an archive can only be read")
        return io.BufferedReader(self.vfs.open(self._strip_protocol(path)), block_size or 1 << 20)
