"""The commands as functions. Each looks at what it is given: one image or store, or many in an archive."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from inrstore import files
from inrstore.archive.export import ArchiveExportReport, export_archive
from inrstore.archive.outcomes import ArchiveConvertReport, ArchiveInfo, ArchiveProgress, StepCallback
from inrstore.archive.plan import OneZip, Plan, Planned
from inrstore.archive.prepare import check_page, convert_single, document, make_job, make_rules, nature
from inrstore.archive.record import archive_info, is_archive
from inrstore.archive.run import Executor, Local, run_job
from inrstore.archive.verify import ArchiveVerifyReport, verify_archive
from inrstore.errors import ConfigurationError
from inrstore.options import Device, Mode, Preset
from inrstore.store import export as store_export
from inrstore.store import verify as store_verify
from inrstore.store.container import ENDING, Container, is_zip
from inrstore.store.export import ExportReport
from inrstore.store.layout import ZarrFormat
from inrstore.store.options import Options, chunks_of
from inrstore.store.quality import Quality
from inrstore.store.reports import ConvertReport, InfoReport, VerifyReport


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    psnr: float | None = None,
    rmse: float | None = None,
    max_error: float | None = None,
    lossless: bool = False,
    preset: Preset = "balanced",
    mode: Mode = "auto",
    device: Device = "auto",
    store: Container | None = None,
    zarr_format: ZarrFormat = 3,
    chunks: str | Sequence[int] = "auto",
    seed: int = 0,
    mask: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rules: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    scheduler: Any = None,
    workers: int | None = None,
    batch: int = 1,
    progress: StepCallback | None = None,
) -> ConvertReport | ArchiveConvertReport:
    """Convert an image to a store, or a folder or zip of images to an archive.

    A store appears under its name only when it is complete, on the disk, decoded again and found to keep its
    promise. The same call again goes on with an archive where an earlier one was stopped. The source is only read.

    Parameters
    ----------
    src : path-like or str
        Path or URL: an image (.nii, .nii.gz, .hdr with its .img), a zip, or a folder: a BIDS dataset, zips, DICOM
        files, or any tree. FSL gradient files beside an image are taken along.
    dst : path-like or str
        Path or URL of the store or the archive. A store whose name ends in .ozx is one file, a zipped OME-Zarr; any
        other is a folder. In an archive images lie as stores, `<name>.ozx`, where they lay in the source; other files
        are copied; zips are folders. If it ends in .ozx or .zarr, a folder or zip must hold one image.
    psnr : float, optional
        Quality in dB, each measurement (volume) relative to its own range. 40 if no quality is given.
    rmse, max_error : float, optional
        Quality in stored units instead.
    lossless : bool
        Keep every bit instead. Images of labels are always kept so, unless a rule names them.
    preset : {"fast", "balanced", "small"}
        Time to spend. "small" also fits a network to each chunk, which takes minutes.
    mode : {"auto", "network", "transform", "av1"}
        What chunks with a target psnr or rmse may be: the smallest that is found (AV1 for one channel, wavelets
        for many), or networks, or wavelets, or AV1. A chunk that the mode asked for does not hold is coded by
        another that keeps the target; `modes` of the report counts what chunks became.
    device : {"auto", "cpu", "cuda"}
        Where networks are fitted.
    store : {"ozx", "zarr"}, optional
        What the stores of an archive are: a zip each ("ozx", the default), or a folder (always in Zarr format 2).
    zarr_format : {3, 2}
        Format of the stores.
    chunks : "auto", "whole" or sequence of int
        Shape of chunks along z, y and x; all measurements of a place are in one chunk. "auto" makes them as small as
        costs few bytes, "whole" as large as can be.
    seed : int
        The same input, seed and kind of device give the same bytes.
    mask : path-like or str, optional
        An image of the same grid; where it is 0, nothing is kept and 0 is read. A name that is no file is looked up
        beside each image; see `inrstore.archive.rules.Rules`.
    include, exclude : sequence of str
        Globs on paths in the archive; see `inrstore.archive.rules.Rules`.
    rules : path-like or str, optional
        TOML file with quality and effort by kind of image; see `inrstore.archive.rules`.
    report : path-like or str, optional
        HTML page to write about an archive, with a picture of every image.
    scheduler : str or distributed.Client, optional
        Work on the workers of this dask.distributed cluster.
    workers : int, optional
        Work on so many processes of this machine, with one thread each.
    batch : int
        Images that are fitted together; more than one pays on a GPU.
    progress : callable, optional
        Called now and then: with a `JobProgress` for one image, with an `ArchiveProgress` for an archive.

    Returns
    -------
    ConvertReport or ArchiveConvertReport
        That of an archive says in `complete` and `failures` whether something failed.

    Raises
    ------
    SourceError, ConfigurationError, DestinationExistsError, DestinationHeldError, StoreError, QualityError,
    MissingDependencyError
    """
    options = Options(
        quality=Quality.of(psnr, rmse, max_error, lossless),
        preset=preset,
        mode=mode,
        device=device,
        seed=seed,
        zarr_format=zarr_format,
        container=store or ("zarr" if zarr_format == 2 else "ozx"),
        mask="" if mask is None else os.fspath(mask),
        chunks=chunks_of(chunks),
    )
    asked = bool(lossless) or any(value is not None for value in (psnr, rmse, max_error))
    include, exclude = _globs("include", include), _globs("exclude", exclude)
    source, destination = os.fspath(src), os.fspath(dst)
    one_store = destination.rstrip("/").lower().endswith(tuple(ENDING.values())) or nature(source) == "file"
    if one_store:
        _refuse_many(store=store, include=include, exclude=exclude, report=report, scheduler=scheduler, workers=workers)
    found = make_rules(options, "" if rules is None else os.fspath(rules), include, exclude, asked=asked)
    if one_store:
        return convert_single(source, destination, found, progress)
    job = make_job(source, destination, found, batch=batch, pictures=report is not None)
    page = None if report is None else os.fspath(report)
    if page is not None:
        check_page(page, job)
    place = files.place(job.source)
    with ExitStack() as stack:
        plan: Planned
        if job.kind == "zip":
            plan = OneZip(place, job.name)
        else:
            plan = stack.enter_context(Plan(place, job.kind, job.rules))
            if job.kind == "tree" and "dicom" in plan.kinds() <= {"dicom", "copy"}:
                job = replace(job, kind="dicom")
        executor: Executor = Local()
        if scheduler is not None or workers is not None:
            from inrstore.archive.cluster import cluster

            executor = stack.enter_context(cluster(scheduler, workers))
        return run_job(job, document(job), plan, executor, progress=progress, report=page)


def info(store: str | os.PathLike[str]) -> InfoReport | ArchiveInfo:
    """Return what a store or an archive says of itself; nothing is decoded.

    Parameters
    ----------
    store : path-like or str
        Path or URL of a store or an archive.
    """
    if _is_archive(store):
        return archive_info(os.fspath(store))
    return store_verify.info(store)


def verify(
    store: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    *,
    fast: bool = False,
    subset: str | None = None,
    progress: StepCallback | None = None,
) -> VerifyReport | ArchiveVerifyReport:
    """Check a store or an archive: that everything is there, and is what was written.

    Parameters
    ----------
    store : path-like or str
        Path or URL of a store or an archive.
    against : path-like or str, optional
        The source it was made from: headers must be equal, and the quality is measured again.
    fast : bool
        Compare sizes and digests only; nothing is decoded.
    subset : str, optional
        "n/t" checks the n-th of t parts, for checking a large archive over t days.
    progress : callable, optional
        As in `convert`.

    Returns
    -------
    VerifyReport or ArchiveVerifyReport
        If nothing is wrong.

    Raises
    ------
    StoreError
        Naming what is missing or changed.
    QualityError
        If the voxels of a store are further from the source than it promises.
    """
    if not _is_archive(store):
        return store_verify.verify(store, against, fast=fast, subset=subset, progress=progress)
    tell = _counting("verifying", progress)
    return verify_archive(store, against, fast=fast, subset=subset, progress=tell)


def export(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    progress: StepCallback | None = None,
) -> ExportReport | ArchiveExportReport:
    """Write the image of a store in the format of its source, or what an archive was made from.

    Parameters
    ----------
    store : path-like or str
        Path or URL of a store or an archive.
    out : path-like
        Must not exist. Of a store the file, with an ending of the format of its source (.nii or .nii.gz; .hdr of a
        pair); of an archive a folder, or of the archive of one zip a name that ends in .zip.
    include : sequence of str
        Of an archive: globs on the paths to be written.
    progress : callable, optional
        As in `convert`.

    Returns
    -------
    ExportReport or ArchiveExportReport

    Raises
    ------
    StoreError, CorruptChunkError, DestinationExistsError, ConfigurationError
    """
    include = _globs("include", include)
    if not _is_archive(store):
        _refuse_many(include=include)
        return store_export.export(store, out, progress=progress)
    tell = _counting("exporting", progress)
    return export_archive(store, out, include, progress=tell)


class _Counting(Protocol):
    def __call__(self, name: str, done: int, bad: int = 0, /) -> None: ...


def _is_archive(where: str | os.PathLike[str]) -> bool:
    return not is_zip(where) and is_archive(files.place(where))


def _globs(name: str, globs: Sequence[str]) -> tuple[str, ...]:
    if isinstance(globs, str):
        raise ConfigurationError(f"{name} must be a list of globs, not the text {globs!r}")
    return tuple(globs)


def _refuse_many(**options: Any) -> None:
    """Refuse options that say something of archives alone."""
    given = [name for name, value in options.items() if value not in (None, ())]
    if given:
        raise ConfigurationError(f"{' and '.join(given)}: only for archives, this is a single store")


def _counting(stage: str, callback: StepCallback | None) -> _Counting | None:
    """Return what turns the steps of an archive's check or export into progress."""
    if callback is None:
        return None
    start = time.perf_counter()

    def tell(name: str, done: int, bad: int = 0) -> None:
        seconds = time.perf_counter() - start
        callback(ArchiveProgress(
            stage=f"{stage} {name}", done=done, failed=bad, total=0, bytes_done=0, bytes_total=0, seconds=seconds
        ))  # fmt: skip

    return tell
