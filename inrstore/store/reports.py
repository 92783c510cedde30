"""What a job tells while it runs and when it is done: frozen values, JSON ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """Where a job stands.

    Parameters
    ----------
    stage : str
        What is being done, for people.
    chunks_done, chunks_total : int
        Chunks that are final, and all.
    fraction : float
        Estimated part of the work done, 0 to 1.
    seconds : float
        Time since the job began.
    mb_per_s : float
        Million bytes of voxels done in a second, so far.
    psnr : float or None
        Current PSNR of what is being fitted, in dB, when there is one.
    unit : str
        What is counted, where it is no chunks.
    """

    stage: str
    chunks_done: int
    chunks_total: int
    fraction: float
    seconds: float
    mb_per_s: float
    psnr: float | None = None
    unit: str = "chunks"


JobCallback: TypeAlias = Callable[[JobProgress], None]


class Clock:
    """Turns steps of a job into progress with times and rates.

    Parameters
    ----------
    callback : callable or None
        Who wants to know.
    total : int
        Number of chunks.
    nbytes : int
        Bytes of voxels in all chunks.
    unit : str
        What is counted, where it is not chunks.
    """

    def __init__(self, callback: JobCallback | None, total: int, nbytes: int, unit: str = "chunks") -> None:
        self._callback, self._unit = callback, unit
        self._total = total
        self._bytes = nbytes
        self._start = time.perf_counter()
        self.prefix = ""  # of what is told: which of several tries it is

    @property
    def wanted(self) -> bool:
        """Whether anyone listens."""
        return self._callback is not None

    def add(self, total: int, nbytes: int) -> None:
        """Count more work."""
        self._total += total
        self._bytes += nbytes

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    def tell(self, stage: str, done: int, fraction: float | None = None, psnr: float | None = None) -> None:
        """Report that `done` chunks are done."""
        if self._callback is None:
            return
        part = done / max(1, self._total) if fraction is None else fraction
        seconds = self.seconds
        self._callback(
            JobProgress(
                stage=self.prefix + stage,
                chunks_done=done,
                chunks_total=self._total,
                fraction=part,
                seconds=seconds,
                mb_per_s=part * self._bytes / 1e6 / max(seconds, 1e-9),
                psnr=psnr,
                unit=self._unit,
            )
        )


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """Size and quality of a store. Quality is in stored units.

    Parameters
    ----------
    store : str
        Its path.
    psnr, psnr_range : float or None
        In dB, each measurement relative to its own range, and relative to the range of the whole image;
        None when nothing differs (an infinite PSNR is no JSON).
    rmse, max_error : float
        Over the finite voxels of the whole image.
    lossless : bool
        Whether every bit is the same.
    promised : dict
        The quality that was asked for.
    noise : dict or None
        Where the promise is one of noise: the `estimator`, and median and range of `sigma`, stored units.
    preserve : dict or None
        Where that quality was looked for: the `measure`, its `bound`, and what was `found`.
    default : dict
        If none was: what the image was taken for ("kind"), and where its noise decided, that "noise" and the error over
        it ("times"); see `inrstore.store.defaults`.
    source_bytes : int
        Uncompressed voxels of the source.
    stored_bytes : int
        All files of the store.
    ratio : float
        source_bytes / stored_bytes.
    chunks : int
        Number of chunks.
    modes : dict of str to int
        Chunks in each mode of the format.
    seconds : float
        Time the command took.
    """

    store: str
    psnr: float | None
    psnr_range: float | None
    rmse: float
    max_error: float
    lossless: bool
    promised: dict[str, Any]
    source_bytes: int
    stored_bytes: int
    ratio: float
    chunks: int
    modes: dict[str, int]
    seconds: float
    noise: dict[str, Any] | None = None
    preserve: dict[str, Any] | None = None
    default: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class ConvertReport(StoreReport):
    """What a conversion made.

    Parameters
    ----------
    mb_per_s : float
        Million bytes of voxels converted in a second.
    worst_voxel : tuple of int
        Where the largest error is: (x, y, z, t, ...).
    seal : str
        Digest of the store's last file, which lists the digests of all others.
    shape : tuple of int
        Of the image.
    dims : tuple of str
        Names of its axes.
    dtype : str
        Type of its voxels.
    stripped : tuple of str
        What of the text in the file was left out, as asked.
    warnings : tuple of str
        What the user should know of how the image was made or read.
    kept : float or None
        With a mask the part of the places that it keeps; errors and PSNR are of these alone. None of a store of
        an earlier run.
    """

    mb_per_s: float
    worst_voxel: tuple[int, ...]
    seal: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    stripped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kept: float | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyReport(StoreReport):
    """What a verification found; that there is a report means that nothing is wrong.

    Parameters
    ----------
    against : str or None
        The source that the store was compared with; without one the quality is what the store says.
    same_file : bool or None
        Whether that source is, byte for byte, the file that was converted. If not, its header and the
        quality against its voxels were still as promised.
    extra_files : tuple of str
        Files in the store that do not belong there.
    chunks_decoded : int
        Chunks that were decoded; none in a fast check.
    mb_per_s : float
        Million bytes of voxels checked in a second.
    """

    against: str | None
    same_file: bool | None
    extra_files: tuple[str, ...]
    chunks_decoded: int
    mb_per_s: float


@dataclass(frozen=True, kw_only=True)
class InfoReport(StoreReport):
    """What a store says of itself, nothing decoded.

    Parameters
    ----------
    shape, chunk_shape : tuple of int
        Of the image.
    dims : tuple of str
        Names of its axes.
    dtype : str
        Type of its voxels.
    zarr_format : int
        2 or 3.
    image_bytes : int
        The chunks of the image alone.
    source : dict
        Name, kind, size and digest of the file that was converted.
    seal : str
        Digest of the store's last file, which lists the digests of all others.
    chunk_list : tuple of dict
        Key, mode, size and details of each chunk.
    mode_bytes : dict of str to dict
        For each mode the `bytes` of its chunks, and how many it `saved` of their voxels.
    """

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    zarr_format: int
    image_bytes: int
    source: dict[str, Any]
    seal: str
    chunk_list: tuple[dict[str, Any], ...]
    mode_bytes: dict[str, dict[str, int]]
