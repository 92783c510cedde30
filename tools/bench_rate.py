"""Bytes at equal quality beside every codec a user would pick, on the real scans.

    pip install -e ".[bench]"
    python -m tools.bench_rate --quick                     # two small scans at 36 dB, printed only
    python -m tools.bench_rate                             # everything; the peers take about an hour of one core
    python -m tools.bench_rate --only-peers --peers x265,SVT-AV1,libaom,PCA+SVT-AV1   # some peers, added to the others
    python -m tools.bench_rate --only-ours --preset fast   # this project's codec alone, beside the peers' known results

Every codec codes the same values: the whole volume, or with --slab the same central slices of z. The quality is the
project's PSNR (specification, section 11), or for `max_error` the largest error of any voxel. Peers' parameters are
bisected until what they decode is at most 0.02 dB above the target, or the closest above that they can
(tools/bench_rate_peers.py and tools/peers_video.py say how each is used); all bytes that a decoder needs are counted.
Ours is one chunk (frame) of the whole volume, coded for the target and measured on what `decode_chunk` gives.

Results: tools/results/rate_peers.json (kept, so that ours can be measured again without the peers), rate.json (ours),
rate.csv and rate.png (both). A run adds to them cell by cell; peers' cells that are there are not measured again
unless the data, their version or --again says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
QUICK = {"volumes": ["s06", "s03"], "psnr": [36.0], "max_error": [4.0]}
SLICE = "s01"
"""Of this volume SirenMRI as published codes one slice."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One cell of the table: a volume, a quality, a codec."""

    volume: str
    kind: str  # psnr, max_error, slice
    asked: float
    codec: str
    arrays: str | None
    slab: int
    device: str = "cpu"
    threads: int = 1

    @property
    def ours(self) -> bool:
        """Whether the codec is this project's, which is named with its preset."""
        return self.codec.startswith("inrstore ")


def run(task: Task) -> dict[str, Any]:
    """Measure a cell; runs in a process of one thread."""
    from tools import bench_rate_ours, bench_rate_peers, bench_rate_sirenmri, peers_video
    from tools.bench_rate_data import load

    volume = load(task.volume, task.arrays, task.slab)
    shown = volume
    if task.kind == "slice":
        volume = bench_rate_sirenmri.central_slice(volume)
    found: dict[str, Any] | None
    if task.ours:
        from inrstore.options import EncodeOptions
        from inrstore.store.quality import Quality

        promise = Quality(max_error=task.asked) if task.kind == "max_error" else Quality(psnr=task.asked)
        options: Any = {"preset": task.codec.split()[1], "device": task.device, "threads": task.threads}
        found = bench_rate_ours.measure(volume, promise, EncodeOptions(**options))
        found |= {"device": device_name(task.device), "threads": task.threads, "seed": 0}
    elif task.kind == "slice":
        found = bench_rate_sirenmri.measure(volume)
    elif task.kind == "max_error":
        found = bench_rate_peers.sz3_bounded(volume, task.asked)
    else:
        found = (bench_rate_peers.PEERS | peers_video.PEERS)[task.codec](volume, task.asked)
    cell = {"volume": task.volume, "kind": task.kind, "asked": task.asked, "codec": task.codec}
    data = {"values_sha256": shown.sha256, "shape": list(shown.image.shape), "dtype": str(shown.image.dtype)}
    return {**cell, **(found or {"bytes": None}), **data, "cut": shown.cut, "versions": versions(task)}


def versions(task: Task) -> dict[str, str]:
    """Return what the cell depends on."""
    from tools import peers_video

    names = ("inrstore", "numpy", "torch") if task.ours else (("torch",) if task.kind == "slice" else ("imagecodecs",))
    found = {}
    if task.codec in peers_video.PEERS:
        names, found = ("av",), dict(peers_video.program_versions(task.codec))
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def device_name(device: str) -> str:
    """Return the processor's or the GPU's name."""
    from tools.environment import describe

    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    return str(describe()["processor"])


def tasks(arguments: argparse.Namespace, peers: bool) -> Iterator[Task]:
    """Yield the cells that are asked for."""
    from tools import bench_rate_peers, peers_video
    from tools.bench_rate_data import MAX_ERROR, PSNR

    four_d = {"s01", "s02", "s03", "s04", "s05", "s06", "s12"}
    wanted = [p for p in [*bench_rate_peers.PEERS, *peers_video.PEERS] if p in arguments.peers]
    wanted = [p for p in wanted if peers_video.missing(p) is None]
    mine = [f"inrstore {preset}" for preset in arguments.preset]
    base = Task(volume="", kind="psnr", asked=0, codec="", arrays=arguments.arrays, slab=arguments.slab,
                device="cpu" if peers else arguments.device, threads=arguments.threads)  # fmt: skip
    for name in arguments.volumes:
        for psnr in arguments.psnr if arguments.psnr is not None else PSNR[name]:
            others = (
                peers_video.THREE_D_ONLY if name in four_d else bench_rate_peers.FOUR_D_ONLY | peers_video.FOUR_D_ONLY
            )
            for codec in [p for p in wanted if p not in others] if peers else mine:
                yield replace(base, volume=name, asked=psnr, codec=codec)
        for error in arguments.max_error if arguments.max_error is not None else MAX_ERROR:
            for codec in [p for p in wanted if p == "SZ3"] if peers else mine:
                yield replace(base, volume=name, kind="max_error", asked=error, codec=codec)
    if SLICE in arguments.volumes and not arguments.quick and arguments.slice:
        if peers and "SirenMRI" in arguments.peers:
            yield replace(base, volume=SLICE, kind="slice", asked=0.0, codec="SirenMRI")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes a row replace another."""
    return row["volume"], row["kind"], row["asked"], row["codec"], row["cut"]


def measure_all(work: list[Task], path: Path | None, jobs: int, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run tasks side by side; after each, write the result file and print a line."""
    from tools.bench_rate_data import write_rows
    from tools.bench_rate_report import data
    from tools.environment import describe

    rows = {key(row): row for row in known}
    fresh: list[dict[str, Any]] = []
    # A process for each task at a time; the next one of a worker mostly reads the volume that it still holds.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run, task): task for task in work}
        for done in as_completed(waiting):
            task = waiting.pop(done)
            try:
                row = done.result()
            except Exception as error:  # one cell that fails must not stop a run of hours
                print(f"{task.volume} {task.kind} {task.asked:g} {task.codec}: {error!r}", file=sys.stderr, flush=True)
                continue
            rows[key(row)] = row
            fresh.append(row)
            print(line(row), flush=True)
            if path is not None:
                every = sorted(rows.values(), key=lambda r: [str(part) for part in key(r)])
                top = {"environment": describe("imagecodecs", "av", "nibabel"), "seed": 0, "data": data(every)}
                write_rows(path, top, every)
    return sorted(rows.values() if path is not None else fresh, key=lambda r: [str(part) for part in key(r)])


def line(row: dict[str, Any]) -> str:
    """Return a result for people."""
    asked = f"{row['asked']:g} dB" if row["kind"] == "psnr" else f"{row['kind']} {row['asked']:g}"
    start = f"{time.strftime('%H:%M:%S')} {row['volume']} {asked:14} {row['codec']:18}"
    if row["bytes"] is None:
        return f"{start} does not get there"
    psnr = "exact" if row["psnr"] is None else f"{row['psnr']:.3f} dB"
    over = f", {row['over']} voxels over" if "over" in row else ""
    ending = row.get("mode") or row.get("setting")
    broken = f"  BROKEN: {row['broken']}" if "broken" in row else ""
    return f"{start} {row['bytes']:>10,} B  {psnr}{over}  {row['encode_s']:.2f} s  {ending}{broken}"


def peers_wanted(arguments: argparse.Namespace, known: list[dict[str, Any]]) -> list[Task]:
    """Return the peers' cells that are not known yet; data or a codec of another version make them unknown."""
    from tools.bench_rate_data import load

    def cell(name: str, kind: str, asked: float, codec: str, found: dict[str, str], sha256: str) -> tuple[Any, ...]:
        return name, kind, asked, codec, tuple(sorted(found.items())), sha256

    names = ("volume", "kind", "asked", "codec", "versions", "values_sha256")
    have = set() if arguments.again else {cell(*(row[name] for name in names)) for row in known}
    wanted = []
    for task in tasks(arguments, peers=True):
        sha256 = load(task.volume, task.arrays, task.slab).sha256
        if cell(task.volume, task.kind, task.asked, task.codec, versions(task), sha256) not in have:
            wanted.append(task)
    return wanted


def ours_wanted(arguments: argparse.Namespace, peers: list[dict[str, Any]]) -> list[Task]:
    """Return our cells, the slice at SirenMRI's own PSNR among them."""
    wanted = list(tasks(arguments, peers=False))
    for row in peers:
        if row["kind"] == "slice" and row["volume"] in arguments.volumes and arguments.slice and not arguments.quick:
            for preset in arguments.preset:
                wanted.append(Task(volume=row["volume"], kind="slice", asked=row["psnr"], codec=f"inrstore {preset}",
                                   arrays=arguments.arrays, slab=arguments.slab, device=arguments.device,
                                   threads=arguments.threads))  # fmt: skip
    return wanted


def parse(words: list[str] | None) -> argparse.Namespace:
    """Return the options of a command line."""
    from tools import bench_rate_peers, peers_video
    from tools.bench_rate_data import ORDER

    every = [*bench_rate_peers.PEERS, *peers_video.PEERS, "SirenMRI"]

    def names(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    def numbers(text: str) -> list[float]:
        return [float(part) for part in names(text)]

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="s06 and s03 at 36 dB, printed only")
    parser.add_argument("--volumes", type=names, help="s01,s02,...; all by default")
    parser.add_argument("--psnr", type=numbers, help="dB, with commas; by default those of each kind of image")
    parser.add_argument("--max-error", type=numbers, help="stored units, with commas; an empty word for none")
    parser.add_argument("--preset", type=names, default=["balanced"], help="of ours: fast,balanced,small")
    parser.add_argument("--device", default="cpu", help="for fitting: cpu, cuda, auto")
    parser.add_argument("--threads", type=int, default=1, help="for ours; peers always have one")
    parser.add_argument("--peers", type=names, default=every, help=f"some of {','.join(every)}")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--only-peers", action="store_true")
    parser.add_argument(
        "--only-report", action="store_true", help="no measurements: tables and picture of what is known"
    )
    parser.add_argument("--no-slice", dest="slice", action="store_false", help="leave out SirenMRI as published")
    parser.add_argument("--jobs", type=int, default=1, help="cells measured side by side")
    parser.add_argument("--slab", type=int, default=0, help="cut volumes to central slices of at least so many values")
    parser.add_argument("--arrays", help="folder of s01.npy, ... to read instead of the scans")
    parser.add_argument("--save-arrays", type=Path, help="write such a folder and stop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--again", action="store_true", help="measure peers again that are known")
    arguments = parser.parse_args(words)
    for name, value in (QUICK if arguments.quick else {"volumes": list(ORDER)}).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if unknown := set(arguments.peers) - set(every):
        parser.error(f"no such peers: {', '.join(sorted(unknown))}")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Measure, write, print."""
    for name in ONE_THREAD:
        os.environ[name] = "1"  # for the processes to come; this one measures nothing
    arguments = parse(words)
    from tools import bench_rate_data, bench_rate_report, peers_video
    from tools.environment import describe

    if arguments.save_arrays:
        bench_rate_data.save(arguments.volumes, arguments.save_arrays)
        return 0
    paths = {name: arguments.results / f"{name}.json" for name in ("rate_peers", "rate")}
    arguments.results.mkdir(parents=True, exist_ok=True)
    peers = bench_rate_data.read_rows(paths["rate_peers"])
    if not (arguments.only_ours or arguments.only_report):
        for codec in arguments.peers:
            if reason := peers_video.missing(codec):
                print(f"{codec} is left out: {reason}", file=sys.stderr)
        wanted = peers_wanted(arguments, peers)
        peers = measure_all(wanted, None if arguments.quick else paths["rate_peers"], arguments.jobs, peers)
    ours = bench_rate_data.read_rows(paths["rate"])
    if not (arguments.only_peers or arguments.only_report):
        work = ours_wanted(arguments, peers)
        ours = measure_all(work, None if arguments.quick else paths["rate"], arguments.jobs, ours)
    compared = bench_rate_report.compare(peers, ours)
    print(bench_rate_report.head(describe("imagecodecs", "av", "nibabel"), [*peers, *ours]))
    print(bench_rate_report.text(compared))
    if not arguments.quick:
        bench_rate_report.write(arguments.results, peers, ours)
    return 0


if __name__ == "__main__":
    sys.exit(main())
