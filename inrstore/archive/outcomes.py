"""What became of a file -> its `Outcome`: the report of a conversion, or an error and what it means for the job."""

from __future__ import annotations

import traceback
from pathlib import Path

from inrstore.archive.items import Kind, Outcome
from inrstore.errors import InrstoreError
from inrstore.store.partial import disk_is_full
from inrstore.store.reports import ConvertReport

_MEASURES = ("psnr", "psnr_range", "rmse", "max_error", "lossless", "ratio", "modes", "promised")


def converted(key: str, out: str, size: int, report: ConvertReport, note: str = "") -> Outcome:
    """Return the outcome of an image that is a store now.

    Parameters
    ----------
    key, out : str
        As in `Outcome`.
    size : int
        Bytes of its files in the source.
    report : ConvertReport
    note : str
    """
    measures = {name: getattr(report, name) for name in _MEASURES}
    measures |= {"worst_voxel": list(report.worst_voxel), "voxel_bytes": report.source_bytes}
    return Outcome(
        kind="image", key=key, out=out, status="converted", note=note, source_bytes=size,
        stored_bytes=report.stored_bytes, digest=report.seal, measures=measures, seconds=report.seconds,
    )  # fmt: skip


def failed(kind: Kind, key: str, out: str, error: BaseException, size: int = 0, seconds: float = 0.0) -> Outcome:
    """Return the outcome of what failed with an error."""
    return Outcome(
        kind=kind, key=key, out=out, status="failed", note=reason(error), source_bytes=size, seconds=seconds,
        stop=disk_is_full(error),
    )  # fmt: skip


def reason(error: BaseException) -> str:
    """Return why something failed, in one line; of an error that nobody foresaw also where it came up."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, InrstoreError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {error}" if str(error) else "not enough memory"
    elif isinstance(error, InrstoreError | OSError):
        text = str(error)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        text = f"an error of this program, please report it: {type(error).__name__}: {error}{where}"
    return " ".join(text.split()) or type(error).__name__
