"""A store -> an image of nibabel: nibabel reads the file that an export would give, where it needs it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.store.reader import Store
from inrstore.views.content import Voxels
from inrstore.views.vfs import Vfs, VirtualFile

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

_CLASSES = {
    "NIfTI-1": "Nifti1Image", "NIfTI-2": "Nifti2Image", "NIfTI-1 pair": "Nifti1Pair", "NIfTI-2 pair": "Nifti2Pair",
    "CIFTI": "Cifti2Image", "MGH": "MGHImage",
}  # fmt: skip
"""Kind of source -> class of nibabel."""
_PARTS = ("header", "image")
_MOST_NIFTI1 = (1 << 15) - 1


def load(store: str | os.PathLike[str], path: str = "") -> SpatialImage:
    """Open an image as nibabel would open the file that it was made from.

    `img.dataobj` is lazy: a slice of it decodes the chunks that it touches, `img.get_fdata()` all; both scale as
    nibabel does. `img.slicer`, `nibabel.save` and all else work as for any file. A copy that is sent to another process
    opens the store there.

    Parameters
    ----------
    store : path-like
        Path or URL of a store or an archive.
    path : str
        Of an archive: the image, as `sub-01/dwi/sub-01_dwi.nii.gz` (its name in the source, with or without .gz) or
        `sub-01/dwi/sub-01_dwi.ozx`.

    Returns
    -------
    nibabel.spatialimages.SpatialImage
        Of the class that belongs to the source: Nifti1Image, Nifti2Image, Nifti1Pair, Nifti2Pair, MGHImage,
        Cifti2Image. Of an NRRD a Nifti1Image (Nifti2Image where an axis is too long for it) with the affine of the
        store, because nibabel knows no NRRD.

    Raises
    ------
    StoreError
        If there is no such store, or it is damaged.
    ConfigurationError
        If the archive has no such image, or none is named.
    OSError
        EIO, when values are read, if a chunk is missing or damaged.
    MissingDependencyError
        Without nibabel.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError('an image of nibabel needs nibabel: pip install "inrstore[nifti]"') from error
    with Vfs(store) as vfs:
        main = _found(vfs, path)
        opened = vfs.store(main)
        kind = str(opened.attributes["source"]["kind"])
        if kind not in _CLASSES:
            return _from_voxels(nibabel, vfs, main, opened)
        made = getattr(nibabel, _CLASSES[kind])
        names = [name for name in vfs.parts(main) if name.lower().endswith((".hdr", ".img"))] or [main]
        parts = ("image",) if len(names) == 1 else _PARTS
        holders = {part: nibabel.fileholders.FileHolder(filename=name, fileobj=vfs.open(name))
                   for part, name in zip(parts, names, strict=True)}  # fmt: skip
    try:
        image: SpatialImage = made.from_file_map(holders, mmap=False)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, ValueError) as error:
        raise StoreError(f"{opened.label}: nibabel cannot read its header: {error}") from error
    return image


def _found(vfs: Vfs, path: str) -> str:
    """Return the first file of an image in a tree."""
    if not vfs.is_archive:
        if path:
            raise ConfigurationError(f"{vfs.label}: is a store of one image; a path is for archives")
        return vfs.first()
    if not path:
        raise ConfigurationError(f"{vfs.label}: is an archive; say which image, as sub-01/anat/sub-01_T1w.nii.gz")
    found = vfs.find(path)
    if found is None:
        raise ConfigurationError(f"{vfs.label}: has no image {path}")
    return found


class _Values(VirtualFile):
    """The voxels alone, x fastest."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _values, self._opened_by[::2]


def _values(where: str, path: str) -> _Values:
    with Vfs(where) as vfs:
        return _Values(vfs, path, Voxels(vfs.store(path), ()))


def _from_voxels(nibabel: Any, vfs: Vfs, main: str, opened: Store) -> SpatialImage:
    """Return an image of a format that nibabel does not know."""
    shape = opened.grid.shape[::-1]
    slope, inter = (float(opened.attributes[name]) for name in ("scl_slope", "scl_inter"))
    file = _Values(vfs, main, Voxels(opened, ()))
    proxy = nibabel.arrayproxy.ArrayProxy(file, (shape, opened.source_dtype, 0, slope, inter), mmap=False)
    made = nibabel.Nifti1Image if max(shape) <= _MOST_NIFTI1 else nibabel.Nifti2Image
    image: SpatialImage = made(proxy, np.asarray(opened.attributes["affine"], np.float64))
    return image
