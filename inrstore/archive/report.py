"""Outcomes of a job -> a page for people: totals, failures, and a row with a picture for every image.

The page is one HTML file with the pictures in it, after the template `report.html`. It is written row by row and needs
nothing from the network; a few lines of script sort the table by the column that is clicked.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.archive.outcomes import Outcome, Tally
from inrstore.errors import MissingDependencyError, SourceError, StoreError
from inrstore.evaluate.picture import strip
from inrstore.files import durable
from inrstore.files.names import RECORD
from inrstore.files.pages import check_replaceable
from inrstore.sources import Source
from inrstore.store.reader import Store
from inrstore.store.slices import SliceIndex, decode_slice, middle, slice_through

if TYPE_CHECKING:
    from jinja2 import Template

PICTURES = f"{RECORD}/pictures"
"""Where an archive keeps the pictures of its images, so that a report after a resumed job has all of them."""

_PIECES = 500
"""Pieces of the page that are written at once."""

Pictures: TypeAlias = Callable[[Outcome], bytes | None]
"""Returns the PNG of an image, or None if there is none."""


def picture_key(out: str) -> str:
    """Return where the archive keeps the picture of a store.

    Parameters
    ----------
    out : str
        Key of the store in the archive.
    """
    return f"{PICTURES}/{out}.png"


def picture_of(store: Store, source: Source) -> bytes:
    """Return original | decoded | error of one slice, for the report.

    It is the slice in x and y through the voxel with the largest error, which is marked; the middle one if
    nothing differs. Only the chunks that it goes through are decoded.

    Parameters
    ----------
    store : Store
        A complete store.
    source : Source
        The image it was made from.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    SourceError
        If the source has another shape than the store.
    """
    shape = store.grid.shape
    if source.voxels.shape != shape:
        raise SourceError(f"{source.label}: its shape is {source.voxels.shape}, the store's {shape}")
    worst = _worst(store)
    at = worst or middle(shape)
    index = slice_through(store.dims, at)
    mark = None
    if worst is not None:
        inside = [number for number, part in zip(at, index, strict=True) if isinstance(part, slice)]
        mark = (inside[0], inside[1]) if len(inside) == 2 else (0, inside[0])
    before, after = (np.atleast_2d(part) for part in (source.voxels[index], decode_slice(store, index)))
    steps = source.voxel_size
    aspect = steps[1] / steps[0] if len(steps) > 1 and steps[0] > 0 and steps[1] > 0 else 1.0
    return strip(before, after, aspect=aspect, mark=mark, inside=_inside(store, index))


def _inside(store: Store, index: SliceIndex) -> npt.NDArray[np.bool_] | None:
    """Return which voxels of a slice are in the mask of a store, None if it has none."""
    kept = store.inside()
    if kept is None:
        return None
    # The mask is the same for all measurements: its leading axes have length 1.
    own = (i if isinstance(i, slice) or n > 1 else 0 for i, n in zip(index, kept.shape, strict=True))
    return np.atleast_2d(kept[tuple(own)])


def _worst(store: Store) -> tuple[int, ...] | None:
    """Return the voxel with the largest error in the store's order, None if nothing differs."""
    found = store.measured.get("worst_voxel")
    if store.measured.get("lossless") or not isinstance(found, list) or len(found) != len(store.grid.shape):
        return None
    inside = all(type(i) is int and 0 <= i < n for i, n in zip(found[::-1], store.grid.shape, strict=True))
    return tuple(found[::-1]) if inside else None


def write_report(
    path: Path,
    outcomes: Callable[[], Iterable[Outcome]],
    job: Mapping[str, Any],
    picture: Pictures | None = None,
) -> Path:
    """Write the report of a job. Memory does not grow with the number of outcomes.

    Parameters
    ----------
    path : Path
        HTML file to write; an earlier page is replaced, and nothing else.
    outcomes : callable
        Gives each image and file once, in the order of the rows. The totals stand above them, so it is called more
        than once.
    job : mapping
        The job as recorded: tool, source, options.
    picture : callable, optional
        Gives the picture of an image; without it the page has none.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    StoreError
        If it cannot be written.
    ConfigurationError
        If another file has its name.
    MissingDependencyError
        Without Jinja.
    """
    check_replaceable(path)
    tally = Tally()
    for outcome in outcomes():
        tally.add(outcome)
    source, options = job.get("source"), job.get("options")
    name = _last(source.get("name") if isinstance(source, Mapping) else source)
    asked = options.items() if isinstance(options, Mapping) else ()
    facts = {"tool": job.get("tool"), "source": name, **{str(k): v for k, v in asked if v not in (None, "", [], {})}}
    page = page_template().stream(
        name=name or "archive",
        facts=facts,
        tally=tally,
        failures=(outcome for outcome in outcomes() if outcome.status == "failed"),
        rows=(
            _row(outcome, picture)
            for outcome in outcomes()
            if outcome.status != "failed" and outcome.kind in ("image", "dicom")
        ),
    )
    page.enable_buffering(_PIECES)
    try:
        durable.write_blocks(path, (piece.encode() for piece in page))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def page_template() -> Template:
    """Return the page, to be filled.

    Raises
    ------
    MissingDependencyError
        Without Jinja.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError('a report needs Jinja: pip install "inrstore[archive]"') from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_given
    )
    environment.filters |= {
        "count": "{:,}".format, "size": size, "number": number, "duration": duration, "modes": _modes, "plain": _plain
    }  # fmt: skip
    return environment.from_string(resources.files(__package__).joinpath("report.html").read_text("utf-8"))


def _row(outcome: Outcome, picture: Pictures | None) -> dict[str, Any]:
    """Return what the row of an image shows, apart from what stands in the outcome itself."""
    psnr, error = outcome.number("psnr"), outcome.number("max_error")
    if outcome.status == "copied":
        quality = "as a file"
    elif outcome.measures.get("lossless"):
        quality, psnr = "every bit", float("inf")
    else:
        quality = "–" if psnr is None else f"{psnr:.2f}"
    worst = outcome.measures.get("worst_voxel")
    folder, slash, name = outcome.key.rpartition("/")
    data = picture(outcome) if picture is not None and outcome.status == "converted" else None
    return {
        "outcome": outcome, "folder": folder + slash, "name": name, "ratio": outcome.number("ratio"), "psnr": psnr,
        "quality": quality, "error": error,
        "worst": f"({', '.join(map(str, worst))})" if isinstance(worst, list | tuple) and error else "",
        "picture": None if data is None else base64.b64encode(data).decode(),
    }  # fmt: skip


# ---- words and numbers for people


def _last(name: Any) -> str:
    """Return the last part of the name of the source: the page may travel, the path would not help there."""
    return str(name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]


def _given(value: Any) -> Any:
    return "" if value is None else value


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(part) for part in value)
    return "yes" if value is True else str(value)


def _modes(modes: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {mode}" for mode, count in sorted(modes.items(), key=lambda pair: -pair[1]))


def size(count: int) -> str:
    """Return a number of bytes with three digits and a decimal unit."""
    if count < 1000:
        return f"{count} B"
    value, units = count / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 999.5 else f"{value:,.0f} {units[0]}"


def number(value: float | None, digits: int) -> str:
    """Return a number with some digits, never with an exponent when it is large; a dash if there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"
