"""A source and its store -> a picture: original | decoded | error, of one slice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import MissingDependencyError, SourceError

if TYPE_CHECKING:
    from inrstore.archive.reader import Store
    from inrstore.archive.sources import Source

_INK, _PAPER, _MUTED = "#e8e6e3", "#16181c", "#9aa0a8"


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
        Directory of the store.
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
    from inrstore.archive.reader import Store, stored_bytes
    from inrstore.archive.sources import read_source

    opened, image = Store(store), read_source(source)
    if image.voxels.shape != opened.grid.shape:
        raise SourceError(f"{image.path}: its shape is {image.voxels.shape}, the store's {opened.grid.shape}")
    index = _middle(opened.grid.shape, opened.dims, volume)
    before = np.atleast_2d(image.voxels[index])
    after = np.atleast_2d(_decode_slice(opened, index))
    psnr = opened.measured.get("psnr")
    quality = "every bit kept" if psnr is None else f"PSNR {psnr:.1f} dB"
    ratio = opened.source_bytes / stored_bytes(opened.path)
    where = ", ".join(
        f"{name} = {value}" for name, value in zip(opened.dims, index, strict=True) if isinstance(value, int)
    )
    title = f"{opened.attributes['source']['name']}    {ratio:.0f} : 1    {quality}"
    return draw_slices(before, after, Path(out), title=title, caption=where, aspect=_aspect(image))


def draw_slices(
    before: npt.NDArray[Any], after: npt.NDArray[Any], out: Path, *, title: str, caption: str, aspect: float
) -> Path:
    """Draw two slices and their difference.

    Parameters
    ----------
    before, after : ndarray
        (y, x), drawn with y upwards.
    out : Path
        PNG file to write.
    title, caption : str
        Text above and below.
    aspect : float
        Height of a voxel / its width.

    Returns
    -------
    Path
        The file written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('drawing needs matplotlib: pip install "inrstore[all]"') from error

    first = before.astype(np.float64)
    difference = after.astype(np.float64) - first
    finite = first[np.isfinite(first)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0.0, 1.0)
    spread = float(np.nanmax(np.abs(difference), initial=0.0)) or 1.0

    rows, columns = before.shape
    height = min(4.5, max(2.2, 3.6 * rows * aspect / columns))
    figure = Figure(figsize=(11.4, height + 1.0), dpi=130, facecolor=_PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    kinds: list[tuple[str, npt.NDArray[Any], dict[str, Any]]] = [
        ("original", first, {"cmap": "gray", "vmin": low, "vmax": high}),
        ("decoded", after.astype(np.float64), {"cmap": "gray", "vmin": low, "vmax": high}),
        ("decoded − original", difference, {"cmap": "RdBu_r", "vmin": -spread, "vmax": spread}),
    ]
    for panel, (name, values, style) in zip(panels, kinds, strict=True):
        drawn = panel.imshow(values, origin="lower", aspect=aspect, interpolation="nearest", **style)
        panel.set_title(name, color=_INK, fontsize=11, pad=6)
        panel.set_axis_off()
    bar = figure.colorbar(drawn, ax=panels[2], shrink=0.8, pad=0.02, aspect=24)
    bar.ax.tick_params(colors=_MUTED, labelsize=8)
    bar.outline.set_edgecolor(_MUTED)
    bar.set_label("stored units", color=_MUTED, fontsize=8)
    figure.suptitle(title, color=_INK, fontsize=13, fontweight="bold")
    figure.supxlabel(caption, color=_MUTED, fontsize=9)
    figure.savefig(out, facecolor=_PAPER, metadata={"Software": None})
    return out


def _middle(shape: tuple[int, ...], dims: tuple[str, ...], volume: int | None) -> tuple[int | slice, ...]:
    middle: list[int | slice] = []
    for length, name in zip(shape, dims, strict=True):
        if name in "xy":
            middle.append(slice(None))
        elif name == "t" and volume is not None:
            middle.append(range(length)[volume])
        else:
            middle.append(length // 2)
    return tuple(middle)


def _decode_slice(store: Store, index: tuple[int | slice, ...]) -> npt.NDArray[Any]:
    """Decode the chunks that one slice goes through, and no others."""
    shape = [n for n, i in zip(store.grid.shape, index, strict=True) if isinstance(i, slice)]
    out = np.zeros(shape, store.dtype)
    for position in store.grid:
        region = store.grid.region(position)
        inner: list[int | slice] = []
        for part, wanted in zip(region, index, strict=True):
            if isinstance(wanted, slice):
                inner.append(slice(None))
            elif part.start <= wanted < part.stop:
                inner.append(wanted - part.start)
            else:
                break
        else:
            place = tuple(part for part, i in zip(region, index, strict=True) if isinstance(i, slice))
            out[place] = store.chunk(position)[tuple(inner)]
    return out


def _aspect(image: Source) -> float:
    if len(image.voxel_size) < 2:
        return 1.0
    return image.voxel_size[1] / image.voxel_size[0]
