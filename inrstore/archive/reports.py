"""What a job tells while it runs and when it is done: frozen values, JSON ready."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from inrstore import files
from inrstore.archive.items import Outcome
from inrstore.archive.record import FOLDER, MANIFEST, Record
from inrstore.store.reports import JobProgress

MOST_FAILURES = 1000
"""Failures that a report lists; all are counted, and all are in the record."""


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


@dataclass
class Tally:
    """Sums over outcomes.

    Attributes
    ----------
    converted, copied, failed, resumed : int
        How many images and files.
    source_bytes, stored_bytes : int
        All files in the source, and all of the archive.
    image_bytes, store_bytes : int
        Of these the images that were converted, and their stores.
    modes : Counter
        Chunks in each mode.
    lowest_psnr : float or None
        In dB, of the images that are not exact.
    failures : list of Outcome
        The first of them.
    """

    converted: int = 0
    copied: int = 0
    failed: int = 0
    resumed: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0
    image_bytes: int = 0
    store_bytes: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    lowest_psnr: float | None = None
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.resumed += outcome.resumed
        if outcome.status == "failed":
            self.failed += 1
            if len(self.failures) < MOST_FAILURES:
                self.failures.append(outcome)
            return
        self.stored_bytes += outcome.stored_bytes
        if outcome.out.startswith(f"{FOLDER}/"):  # of the record: nobody's file
            return
        self.source_bytes += outcome.source_bytes
        if outcome.status == "copied":
            self.copied += 1
            return
        self.converted += 1
        self.image_bytes += outcome.source_bytes
        self.store_bytes += outcome.stored_bytes
        self.modes.update(outcome.measures.get("modes", {}))
        psnr = outcome.measures.get("psnr")
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
            "failures": tuple({"key": one.key, "reason": one.note} for one in self.failures),
        }


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
    failures : tuple of dict
        The first failures: "key" and "reason".
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
    failures: tuple[dict[str, str], ...]

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
    """

    seconds: float
    report: str | None = None


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


def archive_info(where: str) -> ArchiveInfo:
    """Return what an archive says of itself, from its record.

    Parameters
    ----------
    where : str
        Path or URL.

    Raises
    ------
    StoreError
        If it is no archive, or its record is damaged.
    """
    place = files.place(where)
    record = Record(place)
    job = record.job()
    tally = Tally()
    for outcome in record.outcomes():
        tally.add(outcome)
    return ArchiveInfo(
        archive=place.name, complete=place.size(MANIFEST) is not None, **tally.sums(),
        tool=str(job.get("tool")), source=dict(job["source"]), options=dict(job["options"]),
    )  # fmt: skip
