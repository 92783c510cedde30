"""`xarray.open_dataset(path, engine="inrstore")`: stores, images of archives, and image files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import xarray
from xarray.backends import BackendEntrypoint

from inrstore.errors import ConfigurationError
from inrstore.sources.registry import is_image
from inrstore.store import layout
from inrstore.store.container import is_zip
from inrstore.views import backend
from inrstore.views.archive import open_archive


class InrstoreBackend(BackendEntrypoint):
    """What xarray asks."""

    description = "Medical images as inrstore stores, and as the files that these are made from"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "member", "scaled")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        member: str = "",
        scaled: bool = False,
    ) -> xarray.Dataset:
        """Open a store as `inrstore.open` does, or an image file as the store that it would become without loss.

        Parameters
        ----------
        filename_or_obj : path-like
            Path or URL of a store, of an archive, or of an image: NIfTI, CIFTI, MGH, NRRD.
        drop_variables : str or iterable of str, optional
            Of these nothing is seen.
        member : str
            Of an archive, the image, by its path in the archive or in the source.
        scaled : bool
            As in `inrstore.open`.

        Raises
        ------
        StoreError, SourceError, ConfigurationError
        """
        if not isinstance(filename_or_obj, str | os.PathLike):
            raise ConfigurationError("engine inrstore: opens a path or a URL, nothing else")
        where = os.fspath(filename_or_obj)
        if member:
            try:
                dataset: xarray.Dataset = open_archive(where)[member].open(scaled=scaled)
            except KeyError as error:
                raise ConfigurationError(str(error.args[0])) from error
        elif not is_zip(where) and is_image(where):
            dataset = backend.open_source(where, scaled=scaled)
        else:
            dataset = backend.open(where, scaled=scaled)
        image = dataset[layout.IMAGE]
        if image.chunksizes:  # what chunks={} makes of it
            image.encoding["preferred_chunks"] = {name: sizes[0] for name, sizes in image.chunksizes.items()}
        return dataset.drop_vars([drop_variables] if isinstance(drop_variables, str) else drop_variables or (),
                                 errors="ignore")  # fmt: skip

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether the name is that of a store that is a file; folders may be anybody's Zarr."""
        return isinstance(filename_or_obj, str | os.PathLike) and is_zip(filename_or_obj)
