"""An image -> the grid of networks of the trade-off point method, measured cell by cell in a folder.

The folder has `cells.journal`: what was asked, then a record for each cell, on the disk before the next is begun; and,
rewritten at the end of each run, `cells.csv`, a drawing of each marginal and `summary.md`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import files
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_chunks, require_fit
from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError, DestinationExistsError, NotHeldError, QualityError, StoreError
from inrstore.evaluate.fits import require_matplotlib
from inrstore.evaluate.similarity import WINDOW, ssim
from inrstore.evaluate.tradeoff import AXES, BETA, Cell, Marginal, Row, marginals, pareto, trade_off
from inrstore.evaluate.tradeoff_plot import draw_marginals
from inrstore.files import durable
from inrstore.files.journal import Journal, records
from inrstore.files.lock import Lock
from inrstore.options import Device, EncodeOptions, Network, NetworkName, Progress, available_cores
from inrstore.sources import read_source
from inrstore.sources.registry import stem
from inrstore.store.reports import JobCallback, JobProgress

JOURNAL, LOCK, TABLE, SUMMARY = "cells.journal", "lock", "cells.csv", "summary.md"
FORMAT = 1
SECOND = ("lanczos-siren-srdensenet", "fourier-siren-srno")
"""Networks with a second one, which have a scale and channels."""
NEURONS = tuple(range(30, 231, 20))
ENOUGH = 0.7
"""Share of voxels above 0 in a patch of the paper."""
_MOST_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which grid is measured.

    Parameters
    ----------
    network : str
        One of `inrstore.options.NetworkName`.
    downsample, channels, neurons : tuple of int
        Values of the axes. Those of the first two have to be () for a network without a second one, and take the
        published values otherwise if they are.
    layers : int
        Of the first network.
    steps : int
        Of the optimiser; 0 takes the published 5,000.
    size : int
        Edge of the patch, in voxels.
    patch : tuple of int
        First voxel (z, y, x) of the patch; () takes the one with the most voxels that are not 0.
    volume : int
        Which measurement of an image with several.
    beta : float
        See `inrstore.evaluate.tradeoff`.
    device : {"auto", "cpu", "cuda"}
    seed : int
    threads : int
        Cells fitted at a time on a CPU; 0 takes the cores. It changes no result.

    Raises
    ------
    ConfigurationError
        Naming what is wrong.
    """

    network: NetworkName = "fourier-siren-srno"
    downsample: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    neurons: tuple[int, ...] = NEURONS
    layers: int = 3
    steps: int = 0
    size: int = 64
    patch: tuple[int, ...] = ()
    volume: int = 0
    beta: float = BETA
    device: Device = "auto"
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.network in SECOND:
            object.__setattr__(self, "downsample", self.downsample or (2, 4, 8))
            object.__setattr__(self, "channels", self.channels or (4, 8, 16))
        elif self.downsample or self.channels:
            raise ConfigurationError(f"network {self.network} has no second one: give no downsample and no channels")
        for axis in AXES:
            values = getattr(self, axis)
            if len(set(values)) != len(values) or not all(isinstance(v, int) and v > 0 for v in values):
                raise ConfigurationError(f"{axis} must be different whole numbers above 0, not {values}")
        if not self.neurons:
            raise ConfigurationError("neurons: at least one value is needed")
        if not WINDOW <= self.size <= _MOST_SIDE:
            raise ConfigurationError(f"size must be {WINDOW} to {_MOST_SIDE}, not {self.size}")
        if self.network in SECOND and any(self.size % scale for scale in self.downsample):
            raise ConfigurationError(f"size {self.size} is no multiple of downsample {max(self.downsample)}")
        if self.patch and (len(self.patch) != 3 or min(self.patch) < 0):
            raise ConfigurationError(f"patch must be auto or a voxel like 40,80,96 (z, y, x), not {self.patch}")
        if self.steps < 0 or self.volume < 0 or self.threads < 0 or not 0 <= self.beta < math.inf:
            raise ConfigurationError("steps, volume, threads and beta cannot be below 0")
        for cell in self.cells():
            self.network_of(cell)  # names what is out of range before any work

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of the grid, the smallest networks first."""
        for neurons in sorted(self.neurons):
            for channels in sorted(self.channels or (0,)):
                for scale in sorted(self.downsample or (1,)):
                    yield Cell(downsample=scale, channels=channels, neurons=neurons)

    def network_of(self, cell: Cell) -> Network:
        """Return the network of a cell."""
        scale = cell.downsample if self.network in SECOND else 0
        return Network(name=self.network, layers=self.layers, units=cell.neurons, steps=self.steps or 5000,
                       downsample=scale, channels=cell.channels)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TradeoffReport:
    """What was found.

    Parameters
    ----------
    out : str
        The folder.
    image : str
    patch : tuple of int
        First voxel (z, y, x).
    size : int
    filled : float
        Share of voxels of the patch that are not 0.
    rows : tuple of dict
        Each cell with its measures.
    resumed : int
        Cells that were there from earlier runs.
    failed : dict of str to str
        Cells that could not be fitted, and why; the next run tries them again.
    point, cheapest : dict
        Cell of the trade-off point, and the one of the least cost without constraints (beta 0).
    beta : float
    front, stored_front : tuple of dict
        Cells of the Pareto fronts by parameters, and by bytes on the disk.
    seconds : float
    """

    out: str
    image: str
    patch: tuple[int, int, int]
    size: int
    filled: float
    rows: tuple[dict[str, Any], ...]
    resumed: int
    failed: dict[str, str]
    point: dict[str, int]
    cheapest: dict[str, int]
    beta: float
    front: tuple[dict[str, int], ...]
    stored_front: tuple[dict[str, int], ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def choose_patch(volume: npt.NDArray[Any], size: int) -> tuple[int, int, int]:
    """Return the first voxel of the cube with the most voxels that are not 0; of equals the one nearest the centre.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
    size : int
        Edge, not longer than any axis.
    """
    counts = (volume != 0).astype(np.int64)
    for axis in range(3):
        summed = np.cumsum(counts, axis)
        summed = np.concatenate([np.zeros_like(summed.take([0], axis)), summed], axis)
        high = summed.take(np.arange(size, summed.shape[axis]), axis)
        counts = high - summed.take(np.arange(high.shape[axis]), axis)
    places = np.argwhere(counts == counts.max())
    middle = (np.array(counts.shape) - 1) / 2
    best = places[np.square(places - middle).sum(1).argmin()]
    return int(best[0]), int(best[1]), int(best[2])


def run(
    image: str | os.PathLike[str], out: str | os.PathLike[str] | None, plan: Plan,
    progress: JobCallback | None = None,
) -> TradeoffReport:  # fmt: skip
    """Measure the grid on a patch of an image; what an earlier run of the same plan has measured is kept.

    Parameters
    ----------
    image : path-like or str
        Path or URL.
    out : path-like or str, optional
        Folder of this machine; `<image>.tradeoff` in the current one otherwise.
    plan : Plan
    progress : callable, optional

    Raises
    ------
    SourceError
        The image cannot be read.
    ConfigurationError
        The patch does not fit the image, or the folder was begun with another image or plan.
    DestinationExistsError
        The folder holds something else.
    DestinationHeldError
        Another process works in it.
    QualityError
        No cell could be fitted.
    MissingDependencyError
        torch or matplotlib is missing.
    """
    began = time.perf_counter()
    require_fit()
    require_matplotlib()
    source = read_source(image)
    volume = _volume(source.voxels, plan, source.label)
    folder = Path(f"{stem(files.split(image)[1])}.tradeoff" if out is None else os.fspath(out))
    if out is not None and files.is_url(os.fspath(out)):
        raise ConfigurationError(f"{os.fspath(out)}: a folder of this machine is needed")
    patch, corner = _patch(volume, plan, source.label)
    if folder.is_dir() and not (folder / JOURNAL).is_file() and any(p.name != LOCK for p in folder.iterdir()):
        raise DestinationExistsError(f"{folder}: exists already, and no trade-off was begun in it")
    span = float(volume.max()) - float(volume.min())
    if not float(patch.max()) > float(patch.min()):
        raise ConfigurationError(f"{source.label}: all voxels of the patch at {corner} are one value")
    document = _document(plan, patch, corner, span)
    with Lock(folder / LOCK, str(folder)):
        wanted = set(plan.cells())
        done = {cell: row for cell, row in _resume(folder, document).items() if cell in wanted}
        todo = [cell for cell in plan.cells() if cell not in done]
        resumed = len(done)
        with Journal(folder / JOURNAL) as journal:
            if next(records(folder / JOURNAL), None) is None:
                journal.append({"job": document})
            watch = _Watch(progress, began, resumed, resumed + len(todo))
            failed = dict[str, str]()
            for cell, row in _measure(todo, plan, patch, span, watch):
                if isinstance(row, str):
                    failed[_name(cell)] = row
                    continue
                journal.append({"row": _record(row)})
                done[cell] = row
        if not done:
            raise QualityError(f"{source.label}: no cell could be fitted; {next(iter(failed.values()))}")
        rows = [done[cell] for cell in plan.cells() if cell in done]
        report = _report(rows, plan, str(folder), source.label, patch, corner, resumed, failed, began)
        _write(folder, rows, report, document)
    return report


def _volume(voxels: npt.NDArray[Any], plan: Plan, label: str) -> npt.NDArray[Any]:
    if voxels.ndim < 3:
        raise ConfigurationError(f"{label}: an image of {voxels.ndim} axes has no patches")
    volumes = voxels.reshape(-1, *voxels.shape[-3:])
    if plan.volume >= len(volumes):
        raise ConfigurationError(f"{label}: has {len(volumes)} volumes, and volume {plan.volume} is asked for")
    volume: npt.NDArray[Any] = volumes[plan.volume]
    return volume


def _patch(volume: npt.NDArray[Any], plan: Plan, label: str) -> tuple[npt.NDArray[Any], tuple[int, int, int]]:
    """Return the patch and its first voxel."""
    size = plan.size
    if min(volume.shape) < size:
        raise ConfigurationError(f"{label}: its shape {volume.shape} (z, y, x) holds no patch of {size}; give a size")
    corner = (plan.patch[0], plan.patch[1], plan.patch[2]) if plan.patch else choose_patch(volume, size)
    if any(first + size > length for first, length in zip(corner, volume.shape, strict=True)):
        raise ConfigurationError(f"{label}: a patch of {size} at {corner} stands out of {volume.shape} (z, y, x)")
    cut = np.ascontiguousarray(volume[tuple(slice(first, first + size) for first in corner)])
    if not np.isfinite(cut).all():
        raise ConfigurationError(f"{label}: the patch at {corner} has values that are not finite")
    return cut, corner


def _document(plan: Plan, patch: npt.NDArray[Any], corner: tuple[int, ...], span: float) -> dict[str, Any]:
    """Return what decides the results; a run that differs in it is another one."""
    asked = {name: value for name, value in asdict(plan).items() if name not in ("beta", "threads", "patch")}
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    digest = hashlib.sha256(repr((patch.dtype.str, patch.shape)).encode() + patch.tobytes()).hexdigest()
    return {"format": FORMAT, **asked, "corner": list(corner), "span": span, "voxels": digest}


def _resume(folder: Path, document: dict[str, Any]) -> dict[Cell, Row]:
    """Return the rows that a folder has, which has to be one of the same job.

    Raises
    ------
    ConfigurationError, StoreError
    """
    rows: dict[Cell, Row] = {}
    for number, record in enumerate(records(folder / JOURNAL)):
        if number == 0:
            _compare(folder, record.get("job"), document)
            continue
        with suppress(KeyError, TypeError):
            values = dict(record["row"])
            own = Cell(**{axis: int(values.pop(axis)) for axis in AXES})
            psnr = {name: math.inf if values[name] is None else values[name] for name in ("psnr", "psnr_patch")}
            rows[own] = Row(cell=own, **{**values, **psnr})
            continue
        raise StoreError(f"{folder / JOURNAL}: line {number + 1} is no cell")
    return rows


def _compare(folder: Path, found: Any, document: dict[str, Any]) -> None:
    if not isinstance(found, dict):
        raise StoreError(f"{folder / JOURNAL}: does not say what was asked for")
    # Another value of an axis is a larger or smaller grid of the same job: its cells count.
    for name in document.keys() | found.keys():
        if name in AXES or found.get(name) == document.get(name):
            continue
        what = "the voxels of the patch" if name == "voxels" else f"{name} {found.get(name)}"
        other = "are others now" if name == "voxels" else f"is {document.get(name)} now"
        raise ConfigurationError(f"{folder}: was begun with {what}, which {other}; give another folder")


def _record(row: Row) -> dict[str, Any]:
    values = asdict(row)
    cell = values.pop("cell")
    return {**cell, **{name: None if value == math.inf else value for name, value in values.items()}}


class _Stopped(Exception):
    """A run ends before its cells are done."""


class _Watch:
    """Tells progress of several fits at a time, and lets them stop."""

    def __init__(self, callback: JobCallback | None, began: float, done: int, total: int) -> None:
        self._callback, self._began, self._done, self._total = callback, began, done, total
        self._parts: dict[Cell, float] = {}
        self._guard, self._last = threading.Lock(), ""
        self.stop = threading.Event()

    def step(self, cell: Cell, step: Progress) -> None:
        """Take a step of a fit."""
        if self.stop.is_set():
            raise _Stopped
        with self._guard:
            self._parts[cell] = step.fraction
            self._tell()

    def finish(self, cell: Cell, row: Row | str) -> None:
        """Count a cell."""
        with self._guard:
            self._parts.pop(cell, None)
            self._done += 1
            what = (
                row
                if isinstance(row, str)
                else (f"{row.psnr:.2f} dB, SSIM {row.ssim:.3f}, {row.parameters:,} parameters")
            )
            self._last = f"{_name(cell)}: {what}"
            self._tell()

    def _tell(self) -> None:
        if self._callback is None:
            return
        part = (self._done + sum(self._parts.values())) / max(1, self._total)
        self._callback(JobProgress(
            stage=self._last or "fitting", chunks_done=self._done, chunks_total=self._total, fraction=min(1.0, part),
            seconds=time.perf_counter() - self._began, mb_per_s=0.0, unit="cells",
        ))  # fmt: skip


def _name(cell: Cell) -> str:
    return (
        f"1/{cell.downsample}, {cell.channels} channels, {cell.neurons} neurons"
        if cell.channels
        else (f"{cell.neurons} neurons")
    )


def _measure(cells: Sequence[Cell], plan: Plan, patch: npt.NDArray[Any], span: float, watch: _Watch
          ) -> Iterator[tuple[Cell, Row | str]]:  # fmt: skip
    """Yield each cell as it is done, and its row, or why it has none: a thread for each of several on a CPU."""

    def attempt(cell: Cell) -> tuple[Cell, Row | str]:
        try:
            return cell, measure(cell, plan, patch, span, watch.step)
        except NotHeldError as error:
            return cell, error.reason

    workers = 1 if plan.device == "cuda" else min(plan.threads or available_cores(), max(1, len(cells)))
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(attempt, cell) for cell in cells}
        failure: BaseException | None = None
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in ready:
                    if one.cancelled():
                        continue
                    if (error := one.exception()) is not None:  # what others have measured is kept
                        failure = failure or error
                        watch.stop.set()
                        for other in waiting:
                            other.cancel()
                        continue
                    found = one.result()
                    watch.finish(*found)
                    yield found
        finally:
            watch.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    if failure is not None:
        raise failure


def measure(
    cell: Cell, plan: Plan, patch: npt.NDArray[Any], span: float, step: Callable[[Cell, Progress], None]
) -> Row:
    """Fit the network of a cell, and measure what a reader makes of its chunk.

    Parameters
    ----------
    cell : Cell
    plan : Plan
    patch : ndarray, shape (z, y, x)
    span : float
        Range of the whole image.
    step : callable
        Called with the cell and a `Progress` now and then.
    """
    began = time.perf_counter()
    options = EncodeOptions(network=plan.network_of(cell), found=True, device=plan.device, seed=plan.seed, threads=1)
    target = Target(rmse=float(patch.max()) - float(patch.min()))  # networks are nearer: what is reached is kept
    (frame,) = encode_chunks([patch], target, options, lambda progress: step(cell, progress))
    seconds = time.perf_counter() - began
    decoded, details = decode_chunk(frame), describe_chunk(frame).details
    error = float(np.sqrt(np.mean(np.square(patch.astype(np.float64) - decoded.astype(np.float64)))))
    own = float(patch.max()) - float(patch.min())
    psnr, psnr_patch = (20 * math.log10(whole / error) if error else math.inf for whole in (span, own))
    return Row(
        cell=cell, psnr=psnr, psnr_patch=psnr_patch, ssim=ssim(patch, decoded, span),
        parameters=int(details["parameters"]) + int(details.get("refiner_parameters", 0)), voxels=patch.size,
        bytes=len(frame), bits_raw=8 * patch.dtype.itemsize, seconds=seconds,
    )  # fmt: skip


def _report(rows: list[Row], plan: Plan, out: str, label: str, patch: npt.NDArray[Any], corner: tuple[int, int, int],
            resumed: int, failed: dict[str, str], began: float) -> TradeoffReport:  # fmt: skip
    return TradeoffReport(
        out=out, image=label, patch=corner, size=plan.size, filled=float((patch != 0).mean()),
        rows=tuple(_shown(row) for row in rows), resumed=resumed, failed=failed,
        point=asdict(trade_off(rows, beta=plan.beta).cell), cheapest=asdict(trade_off(rows, beta=0.0).cell),
        beta=plan.beta, front=tuple(asdict(row.cell) for row in pareto(rows)),
        stored_front=tuple(asdict(row.cell) for row in pareto(rows, stored=True)),
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def _shown(row: Row) -> dict[str, Any]:
    """Return the row of a cell as tables have it."""
    return {
        **_record(row), "cr": row.compression_rate, "bit_rate": row.bit_rate, "stored_cr": row.stored_compression_rate,
        "stored_bit_rate": row.stored_bit_rate, "cost": None if row.cost == math.inf else row.cost,
    }  # fmt: skip


def _write(folder: Path, rows: Sequence[Row], report: TradeoffReport, document: dict[str, Any]) -> None:
    """Write table, drawings and summary; those of an earlier run are replaced."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(report.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.rows)
    durable.write_file(folder / TABLE, table.getvalue().encode())
    means = marginals(rows)
    for axis, drawing in draw_marginals(means, report.point).items():
        durable.write_file(folder / f"{axis}.svg", drawing)
    durable.write_file(folder / SUMMARY, summary(report, means, document).encode())


def summary(report: TradeoffReport, means: Sequence[Marginal], document: dict[str, Any]) -> str:
    """Return a page about a trade-off, in Markdown."""
    few = "" if report.filled >= ENOUGH else f" (the paper takes patches with {ENOUGH:.0%} and more)"
    lines = [
        f"# Trade-off of {document['network']} on {Path(report.image).name}", "",
        f"Patch of {report.size} voxels along each axis at {report.patch} (z, y, x), {report.filled:.1%} not 0{few}. "
        f"{document['layers']} layers, {document['steps'] or 5000} steps, seed {document['seed']}.", "",
        f"Trade-off point (equation 8, alpha 0, beta {report.beta:g}): {_name(Cell(**report.point))}.  ",
        f"Least cost without constraints (equation 7): {_name(Cell(**report.cheapest))}.", "",
        "CR and bit rate count parameters as the paper does (a weight like a voxel; 32 bits each); stored ones count "
        "bytes on the disk and bytes of the image.", "",
        "| cell | PSNR dB | over the patch | SSIM | parameters | CR % | bits/voxel | bytes | stored CR % "
        "| stored bits/voxel | cost | front |", "|---" * 12 + "|",
    ]  # fmt: skip
    for row in report.rows:
        cell = {axis: row[axis] for axis in AXES}
        front = " and ".join(["paper"] * (cell in report.front) + ["stored"] * (cell in report.stored_front))
        psnr = ["exact" if row[name] is None else f"{row[name]:.2f}" for name in ("psnr", "psnr_patch")]
        cost = "-" if row["cost"] is None else f"{row['cost']:.4f}"
        lines.append(
            f"| {_name(Cell(**cell))} | {psnr[0]} | {psnr[1]} | {row['ssim']:.4f} | {row['parameters']} "
            f"| {100 * row['cr']:.3f} | {row['bit_rate']:.3f} | {row['bytes']} | {100 * row['stored_cr']:.3f} "
            f"| {row['stored_bit_rate']:.3f} | {cost} | {front} |"
        )
    lines += [f"| {name} | {reason}" + " | " * 11 for name, reason in report.failed.items()]
    lines += ["", "Means over the other two axes (equation 9):", "", "| axis | value | 1/PSNR | 1 - SSIM | 1 - CR |",
              "|---|---|---|---|---|"]  # fmt: skip
    lines += [f"| {one.axis} | {one.value} | {one.inverse_psnr:.5f} | {one.dissimilarity:.5f} | {one.rest:.5f} |"
              for one in means]  # fmt: skip
    lines += ["", *(f"![{axis}]({axis}.svg)" for axis in AXES), ""]
    return "\n".join(lines)
