"""Slices -> pictures: original | decoded | error, with words or as a bare strip for a page of many; one in colours."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import MissingDependencyError

_INK, _PAPER, _MUTED = "#e8e6e3", "#16181c", "#9aa0a8"

STRIP_SIDE = 256
"""Longest side of a panel of a strip, in pixels; larger slices are reduced."""

_GAP = 6
_GRAYS, _SIGNS = 126, 63
"""Colours of the palette: grays, then blue to black to red in 2 * _SIGNS + 1 steps, then marker and ground."""
_MARK, _GROUND = 254, 255
_MARK_COLOUR, _GROUND_COLOUR = (255, 230, 0), (22, 24, 28)


def draw_slices(
    before: npt.NDArray[Any], after: npt.NDArray[Any], out: Path, *, title: str, caption: str, aspect: float
) -> Path:
    """Draw two slices and their difference, with words.

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

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('drawing needs matplotlib: pip install "inrstore[all]"') from error

    first = before.astype(np.float64)
    difference = after.astype(np.float64) - first
    low, high = _window(first)
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


def strip(
    before: npt.NDArray[Any],
    after: npt.NDArray[Any],
    *,
    aspect: float = 1.0,
    mark: tuple[int, int] | None = None,
    inside: npt.NDArray[np.bool_] | None = None,
) -> bytes:
    """Return original | decoded | error as a small PNG without words; it needs numpy alone.

    The error goes from blue (decoded is darker) through black to red, up to the largest of this slice. Where
    several voxels share a pixel, gray is their mean and the error the largest of theirs.

    Parameters
    ----------
    before, after : ndarray
        (y, x), drawn with y upwards. Values that are not finite are drawn as black and without error.
    aspect : float
        Height of a voxel / its width.
    mark : tuple of int, optional
        (y, x) of a voxel that is marked by corners in the panel of the error.
    inside : ndarray, optional
        (y, x), the voxels that were to be kept; elsewhere there is no error to be shown.

    Returns
    -------
    bytes
        A PNG with a palette, at most 3 x `STRIP_SIDE` pixels and two gaps wide. The same slices give the same bytes.
    """
    first, second = (np.nan_to_num(part.astype(np.float64), posinf=0.0, neginf=0.0) for part in (before, after))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.nan_to_num(after.astype(np.float64) - before.astype(np.float64), posinf=0.0, neginf=0.0)
    if inside is not None:
        error = np.where(inside, error, 0.0)
    rows, columns = _pixels(first.shape, aspect)
    low, high = _window(before.astype(np.float64))
    grays = [_gray(_means(part, rows, columns), low, high) for part in (first, second)]
    extreme = _extremes(error, rows, columns)
    spread = float(np.abs(extreme).max(initial=0.0)) or 1.0
    signs = (_GRAYS + _SIGNS + np.rint(extreme / spread * _SIGNS)).astype(np.uint8)
    signs = signs[::-1].copy()
    if mark is not None:
        y = rows - 1 - mark[0] * rows // first.shape[0]
        _corners(signs, y, mark[1] * columns // first.shape[1])
    gap = np.full((rows, _GAP), _GROUND, np.uint8)
    return _png(np.concatenate([grays[0][::-1], gap, grays[1][::-1], gap, signs], axis=1))


def _window(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the values that are drawn black and white."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (1, 99.5))
    return float(low), float(high)


def _pixels(shape: tuple[int, ...], aspect: float, side: int = STRIP_SIDE) -> tuple[int, int]:
    """Return rows and columns of a panel: square pixels, small slices enlarged by whole numbers."""
    aspect = aspect if 0.01 <= aspect <= 100 else 1.0
    height, width = shape[0] * max(1.0, aspect), shape[1] * max(1.0, 1 / aspect)
    scale = side / max(height, width)
    if scale > 1:
        scale = float(int(scale))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _starts(length: int, pixels: int) -> npt.NDArray[np.intp]:
    """Return the first voxel of each pixel along an axis."""
    return np.arange(pixels) * length // pixels


def _means(values: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Bring a slice to a number of pixels by means or by repetition."""
    for axis, pixels in ((0, rows), (1, columns)):
        length = values.shape[axis]
        starts = _starts(length, pixels)
        if pixels >= length:
            values = values.take(starts, axis)
        else:
            counts = np.diff(np.append(starts, length))
            sums = np.add.reduceat(values, starts, axis)
            values = sums / (counts[:, None] if axis == 0 else counts)
    return values


def _extremes(values: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Bring a slice to a number of pixels by the value farthest from zero or by repetition."""
    for axis, pixels in ((0, rows), (1, columns)):
        starts = _starts(values.shape[axis], pixels)
        if pixels >= values.shape[axis]:
            values = values.take(starts, axis)
        else:
            high = np.maximum.reduceat(values, starts, axis)
            low = np.minimum.reduceat(values, starts, axis)
            values = np.where(high >= -low, high, low)
    return values


def _gray(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    with np.errstate(over="ignore", invalid="ignore"):
        part = (values - low) / (high - low if high > low else 1.0)
    return np.rint(np.clip(np.nan_to_num(part), 0, 1) * (_GRAYS - 1)).astype(np.uint8)


def _corners(panel: npt.NDArray[np.uint8], row: int, column: int, reach: int = 7, arm: int = 3) -> None:
    """Draw the corners of a square around a pixel, as far as they lie inside."""
    height, width = panel.shape
    for step in range(arm + 1):
        for dy, dx in ((reach, reach - step), (reach - step, reach)):
            for y, x in ((dy, dx), (dy, -dx), (-dy, dx), (-dy, -dx)):
                if 0 <= row + y < height and 0 <= column + x < width:
                    panel[row + y, column + x] = _MARK


def _palette() -> bytes:
    """Return 256 colours as red, green, blue."""
    ramp = np.rint(np.linspace(0, 255, _GRAYS))
    grays = np.stack([ramp, ramp, ramp], axis=1)
    # No error is black, like no signal; the colours get lighter with the error, apart for the colour-blind too.
    stops = np.array([[150, 215, 255], [30, 110, 220], [0, 0, 0], [215, 60, 40], [255, 190, 150]], np.float64)
    at = np.linspace(0, 4, 2 * _SIGNS + 1)
    signs = np.stack([np.interp(at, np.arange(5), stops[:, i]) for i in range(3)], axis=1)
    colours = np.zeros((256, 3))
    colours[:_GRAYS] = grays
    colours[_GRAYS : _GRAYS + len(signs)] = np.rint(signs)
    colours[_MARK], colours[_GROUND] = _MARK_COLOUR, _GROUND_COLOUR
    return colours.astype(np.uint8).tobytes()


def colour_png(plane: npt.NDArray[np.float64], *, aspect: float = 1.0, side: int = STRIP_SIDE) -> bytes:
    """Return a slice in colours as a PNG.

    Parameters
    ----------
    plane : ndarray
        (y, x, 3), red, green and blue in 0 to 1, drawn with y upwards; NaN is drawn as the ground.
    aspect : float
        Height of a voxel / its width.
    side : int
        Longest side of the picture, in pixels; small slices are enlarged by whole numbers.
    """
    rows, columns = _pixels(plane.shape[:2], aspect, side)
    shown = plane[_starts(plane.shape[0], rows)][:, _starts(plane.shape[1], columns)][::-1]
    empty = ~np.isfinite(shown).all(axis=2, keepdims=True)
    scaled = np.rint(255 * np.clip(np.nan_to_num(shown), 0, 1))
    return _png(np.where(empty, np.array(_GROUND_COLOUR), scaled).astype(np.uint8))


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return indices into the palette, (row, column) from the top, or colours, (row, column, 3), as a PNG file."""
    rows, columns = pixels.shape[:2]
    lines = np.zeros((rows, 1 + pixels[0].size), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(rows, -1)
    colours = pixels.ndim == 3
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 2 if colours else 3, 0, 0, 0)),
        *([] if colours else [(b"PLTE", _palette())]),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    out = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in parts:
        out += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(out)
