"""A source and its store -> a picture: original | decoded | error, of one slice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inrstore.errors import SourceError
from inrstore.evaluate.picture import draw_slices

if TYPE_CHECKING:
    from inrstore.sources import Source


def draw_comparison(
    store: str | os.PathLike[str],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    volume: int | None = None,
) -> Path:
    """Draw the middle slice of an image before and after, and the error.

    Only the chunks that the slice needs are decoded.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    source : path-like
        The image it was made from.
    out : path-like
        PNG file to write.
    volume : int, optional
        Which volume of a 4-D image; by default the middle one.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    SourceError
        If the source has another shape than the store.
    """
    from inrstore.sources import read_source
    from inrstore.store.reader import Store
    from inrstore.store.slices import decode_slice, middle, slice_through

    opened, image = Store(store), read_source(source)
    if image.voxels.shape != opened.grid.shape:
        raise SourceError(f"{image.label}: its shape is {image.voxels.shape}, the store's {opened.grid.shape}")
    at = list(middle(opened.grid.shape))
    if volume is not None and "t" in opened.dims:
        axis = opened.dims.index("t")
        at[axis] = range(opened.grid.shape[axis])[volume]
    index = slice_through(opened.dims, at)
    before = np.atleast_2d(image.voxels[index])
    after = np.atleast_2d(decode_slice(opened, index))
    psnr = opened.measured.get("psnr")
    quality = "every bit kept" if psnr is None else f"PSNR {psnr:.1f} dB"
    ratio = opened.source_bytes / opened.stored_bytes()
    where = ", ".join(
        f"{name} = {value}" for name, value in zip(opened.dims, index, strict=True) if isinstance(value, int)
    )
    title = f"{opened.attributes['source']['name']}    {ratio:.0f} : 1    {quality}"
    return draw_slices(before, after, Path(out), title=title, caption=where, aspect=_aspect(image))


def _aspect(image: Source) -> float:
    if len(image.voxel_size) < 2:
        return 1.0
    return image.voxel_size[1] / image.voxel_size[0]
