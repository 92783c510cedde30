"""Outcomes of a job -> a page for people: totals, failures, and a row with a picture for every image.

The page is one HTML file with the pictures in it. It is written row by row and needs nothing from the network; a few
lines of script sort the table by the column that is clicked.
"""

from __future__ import annotations

import base64
import html
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.archive.items import Outcome
from inrstore.archive.page import CAPTION, COLUMNS, FOOT, GENERATOR, HEAD, duration, number, size
from inrstore.archive.record import FOLDER
from inrstore.errors import ConfigurationError, SourceError, StoreError
from inrstore.evaluate.picture import strip
from inrstore.files import durable
from inrstore.sources import Source
from inrstore.store.reader import Store
from inrstore.store.slices import SliceIndex, decode_slice, middle, slice_through

PICTURES = f"{FOLDER}/pictures"
"""Where an archive keeps the pictures of its images, so that a report after a resumed job has all of them."""

_HEAD_BYTES = 4096

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


@dataclass
class _Totals:
    """What the head of the page says; all that is kept in memory of the rows."""

    converted: int = 0
    copied: int = 0
    failed: int = 0
    resumed: int = 0
    images_before: int = 0
    images_after: int = 0
    voxels: float = 0.0
    others: int = 0
    seconds: float = 0.0
    lowest_psnr: float | None = None
    modes: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.resumed += outcome.resumed
        if outcome.status == "failed":
            self.failed += 1
        elif outcome.out.startswith(f"{FOLDER}/"):
            pass  # of the archive's own record: nobody's file
        elif outcome.status == "copied":
            self.copied += 1
            self.others += outcome.stored_bytes
        else:
            self.converted += 1
            self.images_before += outcome.source_bytes
            self.images_after += outcome.stored_bytes
            self.voxels += _float(outcome.measures.get("voxel_bytes")) or 0.0
            self.modes.update(_modes(outcome.measures))
            psnr = _float(outcome.measures.get("psnr"))
            if psnr is not None:
                self.lowest_psnr = psnr if self.lowest_psnr is None else min(psnr, self.lowest_psnr)
        self.seconds += outcome.seconds


def write_report(
    path: Path, outcomes: Iterable[Outcome], job: Mapping[str, Any], picture: Pictures | None = None
) -> Path:
    """Write the report of a job. Memory does not grow with the number of outcomes.

    Parameters
    ----------
    path : Path
        HTML file to write; an earlier page is replaced, and nothing else.
    outcomes : iterable of Outcome
        Each image and file once, in the order of the rows.
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
    """
    check_replaceable(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    totals = _Totals()
    try:
        durable.make_folder(path.parent)
        with ExitStack() as stack:
            # The totals and failures stand above the rows, so the rows wait in a file.
            rows, failures = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(2))
            for outcome in outcomes:
                totals.add(outcome)
                if outcome.status == "failed":
                    failures.write(_failure(outcome))
                elif outcome.kind in ("image", "dicom"):
                    data = picture(outcome) if picture is not None and outcome.status == "converted" else None
                    rows.write(_row(outcome, _inline(data)))
            page = stack.enter_context(temporary.open("x", encoding="utf-8"))
            _assemble(page, totals, job, failures, rows)
        durable.sync(temporary)
        durable.rename(temporary, path)
    except OSError as error:
        with suppress(OSError):
            durable.remove(temporary)
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def check_replaceable(path: Path) -> None:
    """Raise ConfigurationError if a report would replace something that is no report of this program."""
    if not os.path.lexists(path):
        return
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                if GENERATOR in file.read(_HEAD_BYTES):
                    return
    raise ConfigurationError(f"{path}: exists already and is no report of this program; choose another name")


def _assemble(page: IO[str], totals: _Totals, job: Mapping[str, Any], failures: IO[str], rows: IO[str]) -> None:
    options = job.get("options")
    facts = {"tool": job.get("tool"), "source": _named(job.get("source"))}
    facts |= {str(k): v for k, v in options.items() if v not in (None, "", [], {})} if isinstance(options, dict) else {}
    name = _named(job.get("source")) or "archive"
    page.write(HEAD.replace("{title}", html.escape(f"{name} as an archive")))
    page.write(f"<h1>{html.escape(name)}</h1>\n<p class=facts>")
    page.write(" · ".join(f"{html.escape(key)} <b>{html.escape(_plain(value))}</b>" for key, value in facts.items()))
    page.write("</p>\n" + _cards(totals))
    if totals.failed:
        page.write(f"<h2 class=bad>Failed ({totals.failed:,})</h2>\n<ul class=failed>\n")
        failures.seek(0)
        shutil.copyfileobj(failures, page)
        page.write("</ul>\n")
    page.write(f"<h2>Images</h2>\n<p class=caption>{CAPTION}</p>\n<div class=wide>\n<table>\n<thead><tr>")
    page.write("".join(f"<th{mark}>{html.escape(text)}</th>" for text, mark in COLUMNS) + "</tr></thead>\n<tbody>\n")
    rows.seek(0)
    shutil.copyfileobj(rows, page)
    page.write(FOOT)


def _cards(totals: _Totals) -> str:
    ratio = totals.voxels / totals.images_after if totals.voxels and totals.images_after else None
    cards = [
        ("images", f"{totals.converted:,}", f"{totals.resumed:,} from earlier runs" if totals.resumed else ""),
        ("before", size(totals.images_before), f"files; {size(int(totals.voxels))} of voxels"),
        ("after", size(totals.images_after), "stores"),
        ("ratio", number(ratio, 3), "voxels to stores"),
        ("lowest PSNR", "–" if totals.lowest_psnr is None else f"{totals.lowest_psnr:.1f} dB", "of the lossy images"),
        ("other files", f"{totals.copied:,}", f"{size(totals.others)}, as they were"),
        ("failed", f"{totals.failed:,}", "listed below" if totals.failed else "nothing is missing"),
        ("work", duration(totals.seconds), _mode_text(totals.modes)),
    ]
    bad = {"failed"} if totals.failed else set()
    inner = "".join(
        f"<div{' class=bad' if name in bad else ''}><span>{html.escape(name)}</span>"
        f"<b>{html.escape(value)}</b><small>{html.escape(note)}</small></div>"
        for name, value, note in cards
    )
    return f"<div class=cards>{inner}</div>\n"


def _failure(outcome: Outcome) -> str:
    return f"<li><b>{html.escape(outcome.key)}</b> {html.escape(outcome.note or 'no reason was given')}</li>\n"


def _row(outcome: Outcome, picture: str) -> str:
    """Return the row of an image; every cell that is sorted by a number carries it."""
    measures = outcome.measures
    ratio = _float(measures.get("ratio"))
    psnr, error = _float(measures.get("psnr")), _float(measures.get("max_error"))
    if outcome.status == "copied":
        quality = "as a file"
    elif measures.get("lossless"):
        quality, psnr = "every bit", float("inf")
    else:
        quality = "–" if psnr is None else f"{psnr:.2f}"
    worst = measures.get("worst_voxel")
    where = f"({', '.join(str(i) for i in worst)})" if isinstance(worst, list | tuple) and error else ""
    cells = [
        (outcome.key, _name(outcome)),
        (outcome.source_bytes, size(outcome.source_bytes)),
        (outcome.stored_bytes, size(outcome.stored_bytes)),
        (ratio, number(ratio, 3)),
        (psnr, quality),
        (error, f"{number(error, 4)}<small>{html.escape(where)}</small>"),
        (outcome.seconds, duration(outcome.seconds)),
        ("", html.escape(_mode_text(_modes(measures)))),
        ("", f'<img src="{picture}" alt="">' if picture else ""),
    ]
    inner = "".join(f'<td data-v="{html.escape("" if key is None else str(key))}">{text}</td>' for key, text in cells)
    return f"<tr>{inner}</tr>\n"


def _name(outcome: Outcome) -> str:
    note = f"<small>{html.escape(outcome.note)}</small>" if outcome.note else ""
    folder, slash, name = outcome.key.rpartition("/")
    return f"<i>{html.escape(folder + slash)}</i>{html.escape(name)}{note}"


def _inline(data: bytes | None) -> str:
    """Return a picture as the page holds it."""
    return "" if data is None else "data:image/png;base64," + base64.b64encode(data).decode()


def _named(source: Any) -> str:
    """Return the last part of the name of the source: the page may travel, the path would not help there."""
    name = source.get("name") if isinstance(source, Mapping) else source
    return str(name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(part) for part in value)
    return "yes" if value is True else str(value)


def _modes(measures: Mapping[str, Any]) -> dict[str, int]:
    found = measures.get("modes")
    return {str(k): v for k, v in found.items() if type(v) is int} if isinstance(found, Mapping) else {}


def _mode_text(modes: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {mode}" for mode, count in sorted(modes.items(), key=lambda pair: -pair[1]))


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
