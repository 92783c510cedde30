"""What became of each file, and all of them counted: what a job tells while it runs and when it is done.

All are plain values: outcomes travel from workers into the journal, and from there into whatever is told of an archive.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from inrstore.errors import InrstoreError
from inrstore.files.names import RECORD
from inrstore.store.container import disk_is_full
from inrstore.store.reports import ConvertReport, JobProgress

Kind: TypeAlias = Literal["image", "copy", "dicom", "zip"]
Status: TypeAlias = Literal["converted", "copied", "failed"]

MOST_FAILURES = 1000
"""Failures that a report lists; all are counted, and all are in the record."""

MOST_NOTE = 500
"""Characters of a note. Some are made of what strangers wrote, and each is a line of the journal."""

_OPTIONAL = ("stamp", "settings", "origin", "gone")
_MEASURES = ("psnr", "psnr_range", "rmse", "max_error", "lossless", "ratio", "modes", "promised", "default")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item, or of one image or file inside it.

    Parameters
    ----------
    kind : {"image", "copy", "dicom", "zip"}
        As in `Item`; what is inside a zip or a folder of DICOM files is an image or a copy.
    key : str
        Where it was in the source; inside a zip "subject.zip:dMRI/data.nii.gz".
    out : str
        Where it is in the archive.
    status : {"converted", "copied", "failed"}
    note : str
        Why it failed, or why an image was copied rather than converted.
    source_bytes, stored_bytes : int
        The file as it lay in the source, and what the archive takes for it.
    digest : str
        Of a copy: its digest (`inrstore.store.manifest.digest`). Of a store: its seal.
    measures : dict
        Of a store: psnr, psnr_range, rmse, max_error, lossless, worst_voxel, ratio, modes, promised, default.
    seconds : float
        Time taken.
    stamp : str
        What tells without reading whether the files it was made from are the same: their sizes and times.
    settings : str
        What tells whether it would be made in the same way again.
    origin : str
        Name of the source, if it is not that of the archive: the image came with another archive.
    gone : bool
        Whether the source had it no more when a run last looked. What is in the archive stays.
    resumed : bool
        Whether it was there already from an earlier run of the same job.
    stop : bool
        Whether nothing else can succeed either: the destination is full.
    """

    kind: Kind
    key: str
    out: str
    status: Status
    note: str = ""
    source_bytes: int = 0
    stored_bytes: int = 0
    digest: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    stamp: str = ""
    settings: str = ""
    origin: str = ""
    gone: bool = False
    resumed: bool = False
    stop: bool = False

    def __post_init__(self) -> None:
        if len(self.note) > MOST_NOTE:
            object.__setattr__(self, "note", self.note[: MOST_NOTE - 3] + "...")

    @classmethod
    def converted(cls, key: str, out: str, size: int, report: ConvertReport, note: str = "") -> Outcome:
        """Return the outcome of an image that is a store now; `size` is that of its files in the source."""
        measures = {name: getattr(report, name) for name in _MEASURES}
        measures |= {"worst_voxel": list(report.worst_voxel), "voxel_bytes": report.source_bytes}
        taken = [f"taken out: {', '.join(report.stripped)}"] if report.stripped else []
        note = "; ".join([*([note] if note else []), *taken, *report.warnings])
        measures |= {"shape": list(report.shape), "dims": list(report.dims), "dtype": report.dtype}
        return cls(
            kind="image", key=key, out=out, status="converted", note=note, source_bytes=size,
            stored_bytes=report.stored_bytes, digest=report.seal, measures=measures, seconds=report.seconds,
        )  # fmt: skip

    @classmethod
    def failed(
        cls, kind: Kind, key: str, out: str, error: BaseException, size: int = 0, seconds: float = 0.0
    ) -> Outcome:
        """Return the outcome of what failed with an error."""
        return cls(
            kind=kind, key=key, out=out, status="failed", note=reason(error), source_bytes=size, seconds=seconds,
            stop=disk_is_full(error),
        )  # fmt: skip

    @property
    def path(self) -> str:
        """Where it is in the archive, under the name that it has in the source and in an export."""
        if self.status != "converted":
            return self.out
        folder, slash, _ = self.out.rpartition("/")
        return folder + slash + re.split(r"\.zip:", self.key.rpartition("/")[2], flags=re.IGNORECASE)[-1]

    @property
    def of_record(self) -> bool:
        """Whether it is of a file of the archive's own record, which is nobody's."""
        return self.out.startswith(f"{RECORD}/")

    @property
    def modes(self) -> dict[str, int]:
        """Chunks of a store in each mode."""
        found = self.measures.get("modes")
        return {str(k): v for k, v in found.items() if type(v) is int} if isinstance(found, Mapping) else {}

    def number(self, name: str) -> float | None:
        """Return a measure that is a number, None if the record has none of that name."""
        value = self.measures.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object, without what is not set."""
        values = {**vars(self), "measures": dict(self.measures)}
        return {name: value for name, value in values.items() if value or name not in _OPTIONAL}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Take what `to_dict` gave."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})


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


@dataclass
class Tally:
    """Sums over outcomes.

    Attributes
    ----------
    converted, copied, failed, resumed : int
        How many images and files.
    source_bytes, stored_bytes : int
        All files in the source, and all of the archive.
    image_bytes, voxel_bytes, store_bytes : int
        Of these the images that were converted, their voxels, and their stores.
    copy_bytes : int
        The files that were copied.
    seconds : float
        Time taken by all.
    modes : Counter
        Chunks in each mode.
    defaults : Counter
        Images without a quality that was asked for, by what they were taken for.
    lowest_psnr : float or None
        In dB, of the images that are not exact.
    failures, gone_first : list of Outcome
        The first that failed, and of those whose source is gone.
    gone : int
        Stores and files whose source is gone.
    """

    converted: int = 0
    copied: int = 0
    failed: int = 0
    resumed: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0
    image_bytes: int = 0
    voxel_bytes: float = 0.0
    store_bytes: int = 0
    copy_bytes: int = 0
    seconds: float = 0.0
    modes: Counter[str] = field(default_factory=Counter)
    defaults: Counter[str] = field(default_factory=Counter)
    lowest_psnr: float | None = None
    failures: list[Outcome] = field(default_factory=list)
    gone: int = 0
    gone_first: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.resumed += outcome.resumed
        self.seconds += outcome.seconds
        if outcome.status == "failed":
            self.failed += 1
            if len(self.failures) < MOST_FAILURES:
                self.failures.append(outcome)
            return
        self.stored_bytes += outcome.stored_bytes
        if outcome.of_record:
            return
        if outcome.gone:
            self.gone += 1
            if len(self.gone_first) < MOST_FAILURES:
                self.gone_first.append(outcome)
        self.source_bytes += outcome.source_bytes
        if outcome.status == "copied":
            self.copied += 1
            self.copy_bytes += outcome.stored_bytes
            return
        self.converted += 1
        self.image_bytes += outcome.source_bytes
        self.voxel_bytes += outcome.number("voxel_bytes") or 0.0
        self.store_bytes += outcome.stored_bytes
        self.modes.update(outcome.modes)
        default = outcome.measures.get("default")
        if isinstance(default, Mapping) and default:
            self.defaults[str(default.get("kind"))] += 1
        psnr = outcome.number("psnr")
        if psnr is not None:
            self.lowest_psnr = psnr if self.lowest_psnr is None else min(psnr, self.lowest_psnr)

    def sums(self) -> dict[str, Any]:
        """Return what the reports have in common."""
        return {
            "converted": self.converted,
            "copied": self.copied,
            "failed": self.failed,
            "resumed": self.resumed,
            "source_bytes": self.source_bytes,
            "stored_bytes": self.stored_bytes,
            "image_bytes": self.image_bytes,
            "store_bytes": self.store_bytes,
            "ratio": self.image_bytes / self.store_bytes if self.store_bytes else None,
            "psnr": self.lowest_psnr,
            "modes": dict(self.modes),
            "defaults": dict(self.defaults),
            "failures": tuple({"key": one.key, "reason": one.note} for one in self.failures),
            "gone": self.gone,
            "gone_first": tuple(one.key for one in self.gone_first),
        }


@dataclass(frozen=True, kw_only=True)
class ArchiveProgress:
    """Where a job stands.

    Parameters
    ----------
    stage : str
        What is being done, for people.
    done, failed, total : int
        Items that are done, those of them that failed, and all; 0 if it is not known how many there are.
    bytes_done, bytes_total : int
        The same in bytes of the source.
    seconds : float
        Time since the job began.
    running : dict of str to JobProgress
        Images that are being converted now, on all workers, and where each stands.
    """

    stage: str
    done: int
    failed: int
    total: int
    bytes_done: int
    bytes_total: int
    seconds: float
    running: Mapping[str, JobProgress] = field(default_factory=dict)


Step: TypeAlias = JobProgress | ArchiveProgress
StepCallback: TypeAlias = Callable[[Step], None]


@dataclass(frozen=True, kw_only=True)
class ArchiveReport:
    """What an archive holds.

    Parameters
    ----------
    archive : str
        Its path or URL.
    complete : bool
        Whether everything of the source is in it.
    converted, copied, failed : int
        Images that are stores, files as they were, and what failed.
    resumed : int
        How many were there already from earlier runs.
    source_bytes, stored_bytes : int
        Files as they lie in the source, and all that the archive takes for them.
    image_bytes, store_bytes : int
        Of these the images that were converted, and their stores.
    ratio : float or None
        image_bytes / store_bytes.
    psnr : float or None
        The lowest of all images, in dB; None if all are exact.
    modes : dict of str to int
        Chunks in each mode of the format.
    defaults : dict of str to int
        Images without a quality that was asked for, by what they were taken for.
    failures : tuple of dict
        The first failures: "key" and "reason".
    gone : int
        Stores and files whose source was gone when a run last looked; they stay until they are pruned.
    gone_first : tuple of str
        The first of them, by their keys in the source.
    """

    archive: str
    complete: bool
    converted: int
    copied: int
    failed: int
    resumed: int
    source_bytes: int
    stored_bytes: int
    image_bytes: int
    store_bytes: int
    ratio: float | None
    psnr: float | None
    modes: dict[str, int]
    defaults: dict[str, int]
    failures: tuple[dict[str, str], ...]
    gone: int
    gone_first: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ArchiveConvertReport(ArchiveReport):
    """What a job made.

    Parameters
    ----------
    seconds : float
        Time the job took.
    report : str or None
        The page with all images, if one was written.
    unmatched : tuple of str
        Rules that no image fitted; only where it could not be told before, as of folders of scans.
    """

    seconds: float
    report: str | None = None
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArchiveInfo(ArchiveReport):
    """What an archive says of itself; nothing is decoded.

    Parameters
    ----------
    tool : str
        Name and version of the program that began it.
    source : dict
        Kind and name of the source.
    options : dict
        What was asked for.
    """

    tool: str
    source: dict[str, Any]
    options: dict[str, Any]
