"""The commands as functions. Each looks at what it is given: one image or store, or many in an archive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from inrstore import files
from inrstore.archive.changes import Summary, UpdatePlan
from inrstore.archive.estimate import ConvertPlan, estimate
from inrstore.archive.export import ArchiveExportReport, export_archive
from inrstore.archive.merge import MergeReport
from inrstore.archive.merge import merge as merge_into
from inrstore.archive.outcomes import ArchiveConvertReport, ArchiveInfo, ArchiveProgress, StepCallback
from inrstore.archive.plan import Item, Items, Job, Plan, Planned, one_zip
from inrstore.archive.prepare import (
    check_fitting,
    check_page,
    convert_single,
    document,
    make_job,
    make_rules,
    mask_path,
    nature,
    recorded_rules,
)
from inrstore.archive.record import Record, archive_info, archive_place, is_archive
from inrstore.archive.removal import RemovalReport
from inrstore.archive.removal import prune as prune_archive
from inrstore.archive.removal import remove as remove_from
from inrstore.archive.rules import Rule, Rules, parameters_of, suffix_of
from inrstore.archive.run import Executor, Local, Update, plan_update, run_job
from inrstore.archive.verify import ArchiveVerifyReport, verify_archive
from inrstore.chunk.neural.train import Architecture, Recipe, Training
from inrstore.errors import ConfigurationError
from inrstore.evaluate.fits import HEADER, FitTable, require_matplotlib
from inrstore.evaluate.tradeoff import BETA
from inrstore.files import durable
from inrstore.options import Device, Mode, Network, NetworkName, Preset
from inrstore.store import evaluation
from inrstore.store import export as store_export
from inrstore.store import verify as store_verify
from inrstore.store.container import ENDING, Container, is_zip
from inrstore.store.defaults import Kind
from inrstore.store.evaluation import EvaluateReport
from inrstore.store.export import ExportReport
from inrstore.store.layout import ZarrFormat
from inrstore.store.options import Options, chunks_of
from inrstore.store.parameter import read_parameters
from inrstore.store.quality import Quality
from inrstore.store.reports import ConvertReport, InfoReport, JobCallback, VerifyReport
from inrstore.store.tradeoff import NEURONS, TradeoffReport
from inrstore.store.tradeoff import Plan as TradeoffPlan
from inrstore.store.tradeoff import run as run_tradeoff
from inrstore.store.train import TrainReport, train_images


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    psnr: float | None = None,
    rmse: float | None = None,
    max_error: float | None = None,
    noise: float | None = None,
    preserve: str | Mapping[str, float] | None = None,
    lossless: bool = False,
    preset: Preset = "balanced",
    mode: Mode = "auto",
    network: Network | str | None = None,
    device: Device = "auto",
    store: Container | None = None,
    zarr_format: ZarrFormat = 3,
    chunks: str | Sequence[int] = "auto",
    seed: int = 0,
    mask: str | os.PathLike[str] | None = None,
    strip: bool = False,
    shared: Sequence[str | os.PathLike[str]] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rules: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    scheduler: Any = None,
    workers: int | None = None,
    batch: int = 1,
    allow_unmatched: bool = False,
    log_fit: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    progress: StepCallback | None = None,
) -> ConvertReport | ArchiveConvertReport | ConvertPlan:
    """Convert an image to a store, or a folder or zip of images to an archive.

    A store appears under its name only when it is complete, on the disk, decoded again and found to keep its
    promise. The same call again goes on with an archive where an earlier one was stopped. The source is only read.

    Parameters
    ----------
    src : path-like or str
        Path or URL: an image (NIfTI, CIFTI, MGH, NRRD), a zip, or a folder: a BIDS dataset, zips, DICOM
        files, or any tree. Gradients and JSON beside an image are taken along.
    dst : path-like or str
        Path or URL of the store or the archive. A store whose name ends in .ozx is one file, a zipped OME-Zarr; any
        other is a folder. In an archive images lie as stores, `<name>.ozx`, where they lay in the source; other files
        are copied; zips are folders. If it ends in .ozx or .zarr, a folder or zip must hold one image.
    psnr : float, optional
        Quality in dB, each measurement (volume) relative to its own range. If no quality is given, it is one that keeps
        what is computed from an image of its kind, by its noise, and every bit where nothing tells what it is; see
        `inrstore.store.defaults`. Where networks or a mode are asked for it is 40.
    rmse, max_error : float, optional
        Quality in stored units instead.
    noise : float, optional
        Instead, of every measurement an rmse of at most so many times the standard deviation of its noise, as
        `inrstore.evaluate.noise` estimates it from the image.
    preserve : str or mapping, optional
        Instead, the coarsest quality that keeps a measure of an analysis: "fa", "md", "bold", "volume" or "hu", or with
        its bound {"fa": 0.03}; see `inrstore.store.measures`. It is looked for by converting and measuring again and
        again. Of many images a rule says which.
    lossless : bool
        Keep every bit instead. Images of labels are always kept so, unless a rule names them.
    preset : {"fast", "balanced", "small", "paper"}
        Time to spend. "small" also fits a network to each chunk, which takes minutes. "paper" fits SIRENs as they were
        published: 3 layers of 256 sines for each slice, or the network asked for, and 2,000 steps.
    mode : {"auto", "siren", "transform", "av1"}
        What chunks with a target psnr or rmse may be: the smallest that is found (AV1 for one channel, wavelets
        for many), or wavelets, or AV1. A chunk that the mode asked for does not hold is coded by another that keeps the
        target; `modes` of the report counts what chunks became. With "siren" networks hold all chunks that are not of
        one value, or the image fails with a `QualityError` that says which chunk, and how near it came.
    network : Network or str, optional
        Which network, which makes the mode "siren": one of `inrstore.options.NetworkName`, or a `Network` with its
        layers, units and steps. If these are given and no quality is, the store keeps what the network reaches,
        and promises that.
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
    strip : bool
        Leave out what people wrote into the files: free text of headers, extensions, tags. The report says what it was;
        an export gives the image without it.
    shared : sequence of path-like or str
        Files of `train`: networks that chunks of lossless images may name. A store holds a network only where it
        saves more than it takes.
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
    allow_unmatched : bool
        Go on though no image fits a rule, or no file an inclusion; such a rule is otherwise an error before any work.
    log_fit : path-like or str, optional
        CSV file to write about the networks of one image: loss and PSNR of each chunk against steps, also where
        they miss their target. Beside it comes a picture, whose name ends in .png instead.
    dry_run : bool
        Write nothing, and only say what would become of each image, with sizes and times estimated from a few chunks.
    progress : callable, optional
        Called now and then: with a `JobProgress` for one image, with an `ArchiveProgress` for an archive.

    Returns
    -------
    ConvertReport, ArchiveConvertReport or ConvertPlan
        The plan for a dry run. That of an archive says in `complete` and `failures` whether something failed, and in
        `gone` how much of the archive has no source any more; it stays.

    Raises
    ------
    SourceError, ConfigurationError, DestinationExistsError, DestinationHeldError, StoreError, QualityError,
    MissingDependencyError
    """
    options = Options(
        quality=Quality.of(psnr, rmse, max_error, lossless, noise, preserve),
        preset=preset,
        mode=mode,
        network=Network.of(network),
        device=device,
        seed=seed,
        zarr_format=zarr_format,
        container=store or ("zarr" if zarr_format == 2 else "ozx"),
        mask="" if mask is None else os.fspath(mask),
        chunks=chunks_of(chunks),
        strip=strip,
        shared=_parameters(shared),
    )
    if lossless and options.strict:
        raise ConfigurationError("lossless: networks hold chunks with an error; give no network, mode siren or "
                                 "preset paper")  # fmt: skip
    table = None if log_fit is None else FitTable()
    if log_fit is not None:
        _check_log(Path(log_fit), options)
        options = replace(options, log_fit=table)
    asked = bool(lossless) or any(value is not None for value in (psnr, rmse, max_error, noise, preserve))
    if options.shared and asked and not lossless and rules is None:
        raise ConfigurationError("shared: networks of predictors serve lossless images alone; ask for lossless")
    include, exclude = _globs("include", include), _globs("exclude", exclude)
    source, destination = os.fspath(src), os.fspath(dst)
    one_store = destination.rstrip("/").lower().endswith(tuple(ENDING.values())) or nature(source) == "file"
    if one_store:
        _refuse_many(store=store, include=include, exclude=exclude, report=report, scheduler=scheduler, workers=workers)
    found = make_rules(options, "" if rules is None else os.fspath(rules), include, exclude, asked=asked)
    if one_store and dry_run:
        return _estimate_single(source, found, progress)
    if one_store:
        try:
            return convert_single(source, destination, found, progress)
        finally:
            if table is not None and table.steps and log_fit is not None:
                path = Path(log_fit)
                durable.write_file(path, table.csv())
                durable.write_file(path.with_suffix(".png"), table.picture(os.path.basename(source)))
    if table is not None:
        raise ConfigurationError("log_fit: only for a single store")
    job = make_job(source, destination, found, batch=batch, pictures=report is not None)
    if dry_run:
        with ExitStack() as stack:
            job, plan = _planned(job, stack)
            place = files.place(job.source)
            if not allow_unmatched:
                check_fitting(plan, place, job.rules)
            return estimate(job, place, plan, _counting("looking at", progress))
    return _run(job, report=report, scheduler=scheduler, workers=workers, progress=progress,
                allow_unmatched=allow_unmatched)  # fmt: skip


def _estimate_single(source: str, rules: Rules, progress: StepCallback | None) -> ConvertPlan:
    """Return what the conversion of one image would give."""
    place, key = files.split(source)
    if nature(source) != "file":
        raise ConfigurationError(f"{source}: a dry run of a single store takes an image file")
    item = Item(kind="image", key=key, out=key, size=place.size(key) or 0)
    if rules.asked:
        rules = replace(rules, rules=(Rule(name="*", quality=rules.base.quality),))
    job = Job(source=place.name, destination="", kind="tree", name=key, rules=rules)
    return estimate(job, place, Items([item]), _counting("looking at", progress))


def _run(
    job: Job, *, report: str | os.PathLike[str] | None, scheduler: Any, workers: int | None,
    progress: StepCallback | None, allow_unmatched: bool, update: Update | None = None, kind: str = "",
) -> ArchiveConvertReport:  # fmt: skip
    """Plan a job and do it."""
    page = None if report is None else os.fspath(report)
    if page is not None:
        check_page(page, job)
    with ExitStack() as stack:
        job, plan = _planned(job, stack, kind)
        if not allow_unmatched:
            check_fitting(plan, files.place(job.source), job.rules)
        executor: Executor = Local()
        if scheduler is not None or workers is not None:
            from inrstore.archive.cluster import cluster

            executor = stack.enter_context(cluster(scheduler, workers))
        return run_job(job, document(job), plan, executor, progress=progress, report=page, update=update)


def _planned(job: Job, stack: ExitStack, kind: str = "") -> tuple[Job, Planned]:
    """Return a job and its plan, open until the stack is closed; `kind` is what an earlier run took the source for."""
    place = files.place(job.source)
    if job.kind == "zip":
        return job, one_zip(place, job.name)
    plan = stack.enter_context(Plan(place, job.kind, job.rules))
    if job.kind == "tree" and (kind == "dicom" or (not kind and "dicom" in plan.kinds() <= {"dicom", "copy"})):
        job = replace(job, kind="dicom")
    return job, plan


def update(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    psnr: float | None = None,
    rmse: float | None = None,
    max_error: float | None = None,
    noise: float | None = None,
    preserve: str | Mapping[str, float] | None = None,
    lossless: bool = False,
    preset: Preset | None = None,
    mask: str | os.PathLike[str] | None = None,
    shared: Sequence[str | os.PathLike[str]] = (),
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    rules: str | os.PathLike[str] | None = None,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    restore: Sequence[str] = (),
    reread: bool = False,
    allow_unmatched: bool = False,
    device: Device = "auto",
    dry_run: bool = False,
    show: Callable[[UpdatePlan], None] | None = None,
    report: str | os.PathLike[str] | None = None,
    scheduler: Any = None,
    workers: int | None = None,
    batch: int = 1,
    progress: StepCallback | None = None,
) -> ArchiveConvertReport | UpdatePlan:
    """Bring an archive up to date with its source: convert what is new, and anew what was changed.

    Everything is asked for as it was when the archive was made, unless it is given here; images whose settings are
    others now are made anew. A new store takes the place of the old one in one step, when it is whole. What the source
    does not have any more stays, and is counted as gone; `prune` removes it.

    Parameters
    ----------
    src, dst : path-like or str
        Source and archive. The source may lie elsewhere than it did, under the same name.
    psnr, rmse, max_error, noise, preserve, lossless, preset, mask
        As in `convert`; for all images that no rule speaks of, or with `only` for those.
    shared : sequence of path-like or str
        As in `convert`. The files that the archive was made with, again, or others instead of them.
    include, exclude : sequence of str, optional
        As in `convert`; instead of those of the archive. What is not selected any more stays.
    rules : path-like or str, optional
        As in `convert`; instead of those of the archive.
    only : sequence of str
        Suffixes or globs of the images that quality, preset and mask are for; they become rules of the archive.
    force : sequence of str
        Globs on paths in the archive: these are made anew though nothing changed.
    restore : sequence of str
        Globs on paths in the archive: these come back though they were removed.
    reread : bool
        Compare the contents of all files; otherwise a file of the same size and time is taken for the same.
    allow_unmatched : bool
        As in `convert`.
    device, report, scheduler, workers, batch, progress
        As in `convert`.
    dry_run : bool
        Only say what would be done.
    show : callable, optional
        Called with an `UpdatePlan` before anything is done.

    Returns
    -------
    ArchiveConvertReport or UpdatePlan
        The plan for a dry run.

    Raises
    ------
    SourceError, ConfigurationError, DestinationHeldError, StoreError
    """
    source, destination = os.fspath(src), os.fspath(dst)
    recorded = Record(archive_place(destination)).job()
    asked = bool(lossless) or any(value is not None for value in (psnr, rmse, max_error, noise, preserve))
    quality = Quality.of(psnr, rmse, max_error, lossless, noise, preserve) if asked else None
    given = "" if mask is None else mask_path(os.fspath(mask))
    only = _globs("only", only)
    parameters = _parameters(shared)
    others = () if rules is None else parameters_of(os.fspath(rules))
    found = recorded_rules(destination, recorded, "" if only else given, parameters, others)
    base = replace(found.base, device=device)
    if only:
        own = tuple(Rule(name=name, quality=quality, preset=preset, mask=given or None) for name in only)
        found = replace(found, rules=own + tuple(rule for rule in found.rules if rule.name not in only))
    else:
        base = replace(base, quality=quality or base.quality, preset=preset or base.preset)
    found = replace(found, base=base)
    if rules is not None:
        read = make_rules(base, os.fspath(rules), (), (), asked=asked and not only)
        found = replace(read, rules=(own if only else ()) + read.rules, include=found.include, exclude=found.exclude)
    if include is not None:
        found = replace(found, include=_globs("include", include))
    if exclude is not None:
        found = replace(found, exclude=_globs("exclude", exclude))
    job = make_job(source, destination, found, batch=batch, pictures=report is not None)
    kind = str(recorded["source"].get("kind"))
    force, restore = _globs("force", force), _globs("restore", restore)
    if dry_run:
        with ExitStack() as stack:
            job, plan = _planned(job, stack, kind)
            if not allow_unmatched:
                check_fitting(plan, files.place(job.source), job.rules)
            return plan_update(job, document(job), plan, force=force, restore=restore, reread=reread)

    def tell(summary: Summary) -> None:
        if show is not None:
            show(UpdatePlan(archive=destination, **summary.to_dict()))

    wanted = Update(show=tell, force=force, restore=restore, reread=reread)
    return _run(job, report=report, scheduler=scheduler, workers=workers, progress=progress,
                allow_unmatched=allow_unmatched, update=wanted, kind=kind)  # fmt: skip


def train(
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    architecture: Architecture = "cube",
    radius: int | None = None,
    layers: int | None = None,
    units: int | str | Sequence[int] | None = None,
    steps: int | None = None,
    recipe: Recipe = "usual",
    device: Device = "auto",
    seed: int = 0,
    progress: StepCallback | None = None,
) -> TrainReport:
    """Train a network that predicts voxels from their neighbours, for lossless stores of images like these.

    Parameters
    ----------
    images : sequence of path-like or str
        Paths or URLs of images.
    out : path-like or str
        The file to write; `convert` takes it as `shared`. It must not exist.
    architecture : {"cube", "pyramid"}
        The neighbours that it sees; see `inrstore.chunk.neural.train.Training`, as for what follows.
    radius : int, optional
        Of the cube.
    layers : int, optional
        Hidden layers, if `units` is one number.
    units : int, text with commas, or sequence of int, optional
        Of each layer, or one number for all.
    steps : int, optional
        Of the optimiser.
    recipe : {"usual", "paper"}
        "paper" takes layers, inputs, loss, batch and rate as published.
    device : {"auto", "cpu", "cuda"}
    seed : int
        The same images, seed, kind of device and number of torch's threads give the same file.
    progress : callable, optional
        Called now and then with a `JobProgress`.

    Raises
    ------
    SourceError, ConfigurationError, DestinationExistsError, MissingDependencyError
    """
    for name, value in (("radius", radius), ("layers", layers), ("steps", steps)):
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} must be 1 or more, not {value}")
    widths = _numbers("units", units)
    if layers is not None and len(widths) > 1 and len(widths) != layers:
        raise ConfigurationError(f"units are of {len(widths)} layers, and {layers} are asked for")
    if len(widths) < 2 and (widths or layers is not None):
        if recipe == "paper" and not widths:
            raise ConfigurationError("layers: say how many units they have; the published ones are of four layers")
        widths = (widths or (32,)) * (layers or 2)
    if isinstance(images, str | os.PathLike):
        images = [images]
    training = Training(architecture=architecture, radius=radius or 0, units=widths, steps=steps or 0, recipe=recipe,
                        device=device, seed=seed)  # fmt: skip
    return train_images(images, out, training, progress)


def tradeoff(
    image: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    network: NetworkName = "fourier-siren-srno",
    downsample: int | str | Sequence[int] | None = None,
    channels: int | str | Sequence[int] | None = None,
    neurons: int | str | Sequence[int] | None = None,
    layers: int = 3,
    steps: int | None = None,
    size: int = 64,
    patch: str | Sequence[int] = "auto",
    volume: int = 0,
    beta: float = BETA,
    device: Device = "auto",
    seed: int = 0,
    threads: int = 0,
    progress: StepCallback | None = None,
) -> TradeoffReport:
    """Measure a grid of networks on a patch of an image, and find its trade-off point (Sheibanifard et al. 2025).

    What is measured of a cell is on the disk before the next one is begun: the same call again goes on from there.

    Parameters
    ----------
    image : path-like or str
        Path or URL of an image.
    out : path-like or str, optional
        Folder for the table, the drawings and the summary; `<image>.tradeoff` in the current one otherwise.
    network : str
        One of `inrstore.options.NetworkName`.
    downsample, channels, neurons : int, text with commas, or sequence of int, optional
        Values of the grid; the published ones otherwise: 2, 4, 8; 4, 8, 16; 30 to 230 in steps of 20. The first two
        are for networks with a second one.
    layers, steps : int
        Of the first network; of the optimiser, 5,000 if none are given.
    size : int
        Edge of the patch.
    patch : "auto" or three numbers
        First voxel (z, y, x); "auto" takes the patch with the most voxels that are not 0.
    volume : int
        Which measurement of an image with several.
    beta : float
        Penalty of the constraints; see `inrstore.evaluate.tradeoff`.
    device : {"auto", "cpu", "cuda"}
    seed, threads : int
        As in `convert`; so many cells are fitted at a time on a CPU, all cores for 0.
    progress : callable, optional
        Called now and then with a `JobProgress`.

    Raises
    ------
    SourceError, ConfigurationError, DestinationExistsError, DestinationHeldError, MissingDependencyError
    """
    if steps is not None and steps < 1:
        raise ConfigurationError(f"steps must be 1 or more, not {steps}")
    plan = TradeoffPlan(
        network=network,
        downsample=_numbers("downsample", downsample),
        channels=_numbers("channels", channels),
        neurons=_numbers("neurons", neurons) or NEURONS,
        layers=layers,
        steps=steps or 0,
        size=size,
        patch=() if patch == "auto" else _numbers("patch", patch),
        volume=volume,
        beta=beta,
        device=device,
        seed=seed,
        threads=threads,
    )
    return run_tradeoff(image, out, plan, progress)


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


def evaluate(
    source: str | os.PathLike[str],
    stores: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    kind: Kind | None = None,
    mask: str | os.PathLike[str] | None = None,
    yardsticks: bool = False,
    seed: Sequence[int] | None = None,
    report: str | os.PathLike[str] | None = None,
    table: str | os.PathLike[str] | None = None,
    progress: JobCallback | None = None,
) -> EvaluateReport:
    """Measure what compression did to an image and to what is computed from it.

    Any image: errors, three PSNRs, SSIM. Diffusion MRI: MD, FA, main direction, RISH and fODF in white and gray matter
    and CSF. fMRI: temporal SNR, correlation of the series, connectivity. Structural MRI: edges, Dice of a segmentation.
    CT: errors in Hounsfield units by range. How, say the modules of `inrstore.evaluate`.

    Parameters
    ----------
    source : path-like or str
        Path or URL of the image.
    stores : sequence of path-like, or one
        Stores made of it, to be compared side by side.
    kind : {"dmri", "fmri", "structural", "ct", "image"}, optional
        What the image is; by default as its gradients, name, sidecar and shape say. "image" is measured as any.
    mask : path-like or str, optional
        An image of the same grid; where it is 0, nothing counts for the measures of a kind. By default a mask is found.
    yardsticks : bool
        Also measure what else might be done to the scan: denoising (MP-PCA), smoothing, other codecs at the bytes of
        each store (with imagecodecs), and how far two halves of the scan are apart.
    seed : sequence of int, optional
        (x, y, z) of the voxel whose connectivity is looked at.
    report : path-like or str, optional
        HTML page to write, with pictures and curves.
    table : path-like or str, optional
        CSV file to write, a line for each figure.
    progress : callable, optional
        Called now and then with a `JobProgress`.

    Returns
    -------
    EvaluateReport

    Raises
    ------
    SourceError, StoreError, CorruptChunkError
        If one cannot be read, or a store is none of such an image.
    ConfigurationError
        For an option that does not fit the image.
    MissingDependencyError
        Without the extra `evaluate`, if a kind is asked for; otherwise what needs it is left out, and `notes` say so.
    """
    if isinstance(stores, str | os.PathLike):
        stores = [stores]
    place = None
    if seed is not None:
        if len(seed) != 3:
            raise ConfigurationError(f"seed must be three numbers, x, y, z, not {list(seed)}")
        place = int(seed[0]), int(seed[1]), int(seed[2])
    wanted = evaluation.Wanted(
        kind=kind, suffix=suffix_of(os.fspath(source)), mask="" if mask is None else os.fspath(mask),
        yardsticks=yardsticks, seed=place, report=None if report is None else os.fspath(report),
        table=None if table is None else os.fspath(table),
    )  # fmt: skip
    return evaluation.evaluate(source, [os.fspath(where) for where in stores], wanted, progress)


def remove(
    archive: str | os.PathLike[str], include: Sequence[str], *, dry_run: bool = False, force: bool = False
) -> RemovalReport:
    """Remove stores and files from an archive for good; see `inrstore.archive.removal.remove`."""
    return remove_from(archive, _globs("include", include), dry_run=dry_run, force=force)


def prune(archive: str | os.PathLike[str], *, dry_run: bool = False) -> RemovalReport:
    """Remove what the source does not have any more, and leftovers; see `inrstore.archive.removal.prune`."""
    return prune_archive(archive, dry_run=dry_run)


def merge(
    other: str | os.PathLike[str], archive: str | os.PathLike[str], *, exclude: Sequence[str] = ()
) -> MergeReport:
    """Take everything of another archive into an archive; see `inrstore.archive.merge.merge`."""
    return merge_into(other, archive, exclude=_globs("exclude", exclude))


def _parameters(shared: Sequence[str | os.PathLike[str]]) -> tuple[bytes, ...]:
    if isinstance(shared, str | os.PathLike):
        raise ConfigurationError(f"shared must be a list of files, not {shared!r}")
    return read_parameters(shared)


def _numbers(name: str, given: str | int | Sequence[int] | None) -> tuple[int, ...]:
    """Return whole numbers, given as text with commas, as one, or one by one; none as ()."""
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else given
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} must be numbers like 4 or 4,8, not {given!r}") from None


class _Counting(Protocol):
    def __call__(self, name: str, done: int = 0, bad: int = 0, /) -> None: ...


def _is_archive(where: str | os.PathLike[str]) -> bool:
    return not is_zip(where) and is_archive(files.place(where))


def _globs(name: str, globs: Sequence[str]) -> tuple[str, ...]:
    if isinstance(globs, str):
        raise ConfigurationError(f"{name} must be a list of globs, not the text {globs!r}")
    return tuple(globs)


def _check_log(path: Path, options: Options) -> None:
    """Refuse a log of fits that there are none of, that could not be drawn, or that would replace another file."""
    if not options.networks:
        raise ConfigurationError("log_fit: nothing is fitted; give a network, mode siren, or preset small or paper")
    if path.suffix.lower() == ".png":
        raise ConfigurationError(f"{path}: is for the numbers; the picture beside it ends in .png")
    require_matplotlib()
    own = False
    if path.is_file():
        with path.open("rb") as file:
            own = file.read(len(HEADER)) == HEADER
    for one in (path, path.with_suffix(".png")):
        if os.path.lexists(one) and not own:
            raise ConfigurationError(f"{one}: exists already and is no log of this program; choose another name")


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

    def tell(name: str, done: int = 0, bad: int = 0) -> None:
        seconds = time.perf_counter() - start
        callback(ArchiveProgress(
            stage=f"{stage} {name}", done=done, failed=bad, total=0, bytes_done=0, bytes_total=0, seconds=seconds
        ))  # fmt: skip

    return tell
