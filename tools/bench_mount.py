"""Measures a mount: every file against an export, a voxel's course, reading on and on, find, eight readers, FA maps.

    python -m tools.bench_mount [--archive FOLDER] [--only STEP ...] [--out tools/results/mount.json]

What is measured is wall time on a machine that may have other work, so each time is taken several times, each of a
mount of its own; smallest, median and largest are given, with the load when it began, and, which other work changes
less, the processor time that the mount took for it. `cold` is the first read from
a mount: nothing is decoded, the kernel has no page; the loops are loaded, which the mount does by itself when it
begins. `warm` is another voxel of the same chunk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

import inrstore
from inrstore.archive.manifest import ManifestEntry, read_manifest, write_manifest
from inrstore.archive.record import archive_place
from inrstore.views.mount import mount, process_of, unmount
from inrstore.views.vfs import Vfs
from tools.environment import DATA, describe, sha256

SCAN = "sub-s01/dwi/sub-s01_acq-philips32dir_dwi"
VOXELS = ((64, 64, 14), (70, 50, 20), (40, 80, 8))
RUNS = 7
STEPS = ("files", "course", "sequential", "find", "readers")
MANY = 10_000
READERS = 8
_BLOCK = 1 << 17
_LOADING = 3.0
"""Seconds that a mount has for loading its loops before something is measured."""

_READER = """
import os, random, sys, time
there, back, seed, seconds = sys.argv[1:]
number, count, end = random.Random(int(seed)), 0, time.monotonic() + float(seconds)
pairs = [(os.open(a, os.O_RDONLY), os.open(b, os.O_RDONLY), os.path.getsize(b))
         for a, b in zip(there.split(os.pathsep), back.split(os.pathsep))]
while time.monotonic() < end:
    a, b, size = number.choice(pairs)
    start, length = number.randrange(size), number.randrange(1, 1 << 18)
    assert os.pread(a, length, start) == os.pread(b, length, start), (a, start, length)
    count += 1
print(count)
"""


@contextmanager
def mounted(archive: Path, **options: Any) -> Iterator[Path]:
    """Give a folder with a mount of its own that has loaded its loops."""
    with tempfile.TemporaryDirectory() as name:
        mount(archive, name, **options)
        try:
            time.sleep(_LOADING)
            yield Path(name)
        finally:
            unmount(name)


def exported(archive: Path, folder: Path) -> Path:
    """Write what a mount of an archive is to show, by an export: images unpacked, all else as it was."""
    inrstore.export(archive, folder)
    with Vfs(archive) as vfs, Vfs(archive, gz=True) as named:
        for own, plain in zip(named.walk(), vfs.walk(), strict=True):
            if own.path != plain.path:
                (folder / own.path).unlink()
                inrstore.export(vfs.store(plain.path).label, folder / plain.path)
    return folder


def compare(there: Path, back: Path) -> dict[str, Any]:
    """Compare size and SHA-256 of every file of two trees; all must be equal."""
    names = sorted(path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file())
    size = 0
    for name in names:
        assert (there / name).stat().st_size == (back / name).stat().st_size, name
        with (there / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == sha256(back / name), name
        size += (back / name).stat().st_size
    return {"files": len(names), "bytes": size, "equal": True}


def course(archive: Path) -> dict[str, Any]:
    """Measure milliseconds until nibabel has a voxel's course: cold, and warm."""
    cold, warm, taken, load = [], [], [], os.getloadavg()[0]
    for _ in range(RUNS):
        with mounted(archive) as there:
            before = _processor_ms(there)
            times = [_timed(_course, there, VOXELS[0])]
            taken.append(_processor_ms(there) - before)
            times += [_timed(_course, there, voxel) for voxel in VOXELS[1:]]
        cold.append(times[0] * 1e3)
        warm += [seconds * 1e3 for seconds in times[1:]]
    return {"scan": SCAN, "load": load, "cold_ms": _summary(cold), "cold_processor_ms": _summary(taken),
            "warm_ms": _summary(warm)}  # fmt: skip


def _course(there: Path, voxel: tuple[int, int, int]) -> None:
    assert np.asarray(nibabel.load(there / f"{SCAN}.nii").dataobj[voxel]).shape == (33,)


def sequential(archive: Path) -> dict[str, Any]:
    """Measure MB/s of a whole scan from a mount, decoded, and again from the pages of the kernel; beside gzip -dc."""
    first, again, unzipped, taken, load = [], [], [], [], os.getloadavg()[0]
    source = DATA / f"{SCAN}.nii.gz"
    for _ in range(RUNS):
        with mounted(archive) as there:
            path = there / f"{SCAN}.nii"
            size = path.stat().st_size / 1e6
            before = _processor_ms(there)
            first.append(size / _timed(_read, path))
            taken.append(_processor_ms(there) - before)
            again.append(size / _timed(_read, path))
        unzipped.append(size / _timed(_gunzip, source))
    return {"scan": SCAN, "load": load, "mb": round(size, 1), "mount_mb_per_s": _summary(first),
            "mount_processor_ms": _summary(taken), "mount_again_mb_per_s": _summary(again),
            "gzip_dc_mb_per_s": _summary(unzipped)}  # fmt: skip


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK):
            pass


def _gunzip(path: Path) -> None:
    subprocess.run(["gzip", "-dc", str(path)], check=True, stdout=subprocess.DEVNULL)


def many(folder: Path, count: int) -> Path:
    """Make an archive of so many images, which are one image under many names."""
    source = folder / "one"
    source.mkdir(parents=True)
    image = nibabel.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.eye(4))
    nibabel.save(image, source / "x.nii.gz")
    archive = folder / "archive"
    inrstore.convert(source, archive, lossless=True, preset="fast")
    place = archive_place(archive)
    (one,) = [entry for entry in read_manifest(place) if entry.kind == "store"]
    entries = []
    for number in range(count):
        name = f"sub-{number // 4:05}/anat/sub-{number // 4:05}_run-{number % 4}_T1w"
        path = archive / f"{name}.ozx"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(archive / one.out, path)
        entries.append(ManifestEntry(out=f"{name}.ozx", kind="store", bytes=one.bytes, digest=one.digest,
                                     key=f"{name}.nii.gz"))  # fmt: skip
    (archive / one.out).unlink()
    write_manifest(place, entries)
    return archive


def found(folder: Path) -> dict[str, Any]:
    """Measure seconds of mounting, find, and find with sizes, over many images."""
    archive = many(folder, MANY)
    names, sizes, mounting, taken, load = [], [], [], [], os.getloadavg()[0]
    for _ in range(3):
        with tempfile.TemporaryDirectory() as there:
            mounting.append(_timed(mount, archive, there))
            try:
                start = _processor_ms(Path(there))
                names.append(_timed(_find, there))
                between = _processor_ms(Path(there))
                sizes.append(_timed(_find, there, "-size", "+0"))
                taken.append((between - start, _processor_ms(Path(there)) - between))
            finally:
                unmount(there)
    return {"images": MANY, "load": load, "mount_s": _summary(mounting), "find_s": _summary(names),
            "find_with_sizes_s": _summary(sizes), "find_processor_ms": _summary([one for one, _ in taken]),
            "find_with_sizes_processor_ms": _summary([other for _, other in taken])}  # fmt: skip


def _find(there: str, *options: str) -> None:
    done = subprocess.run(["find", there, "-name", "*.nii", *options], check=True, capture_output=True)
    assert done.stdout.count(b"\n") == MANY


def agree(there: Path, back: Path, seconds: float) -> dict[str, Any]:
    """Have processes read at random, and compare each read with the exported file."""
    names = sorted(path.relative_to(back) for path in back.rglob("*.nii"))
    lists = [os.pathsep.join(str(folder / name) for name in names) for folder in (there, back)]
    readers = [
        subprocess.Popen([sys.executable, "-S", "-c", _READER, *lists, str(seed), str(seconds)], stdout=subprocess.PIPE)
        for seed in range(READERS)
    ]
    counts = [int(reader.communicate()[0]) for reader in readers]
    assert all(reader.returncode == 0 for reader in readers)
    return {"processes": READERS, "seconds": seconds, "files": len(names), "reads": sum(counts), "equal": True}


def maps(there: Path, back: Path) -> dict[str, Any]:
    """Make the FA map of the scan by what is installed, from the mount and from the export; they must be equal."""
    out: dict[str, Any] = {}
    for name, make in (("MRtrix3", _fa_mrtrix), ("dipy", _fa_dipy)):
        if not (shutil.which("dwi2tensor") if name == "MRtrix3" else find_spec("dipy")):
            out[name] = "not installed"
            continue
        one, other = make(there), make(back)
        assert np.array_equal(one, other, equal_nan=True) and np.nanmean(one) > 0
        out[name] = {"equal": True, "mean_fa": round(float(np.nanmean(one)), 4)}
    return out


def _fa_mrtrix(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as name:
        scan, tensor, fa = folder / f"{SCAN}.nii", f"{name}/dt.mif", f"{name}/fa.nii"
        gradients = [str(scan.with_suffix(ending)) for ending in (".bvec", ".bval")]
        subprocess.run(["dwi2tensor", "-quiet", "-fslgrad", *gradients, str(scan), tensor], check=True)
        subprocess.run(["tensor2metric", "-quiet", "-fa", fa, tensor], check=True)
        return nibabel.load(fa).get_fdata()


def _fa_dipy(folder: Path) -> Any:
    from dipy.core.gradients import gradient_table
    from dipy.io.gradients import read_bvals_bvecs
    from dipy.reconst.dti import TensorModel

    scan = folder / f"{SCAN}.nii"
    bvals, bvecs = read_bvals_bvecs(str(scan.with_suffix(".bval")), str(scan.with_suffix(".bvec")))
    return TensorModel(gradient_table(bvals, bvecs=bvecs)).fit(nibabel.load(scan).get_fdata()[:, :, 10:16]).fa


def _timed(action: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def _processor_ms(there: Path) -> float:
    """Return the processor time that a mount has taken."""
    fields = Path(f"/proc/{process_of(there)}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") * 1e3  # man 5 proc: utime and stime


def _summary(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3),
            "max": round(max(values), 3), "runs": len(values)}  # fmt: skip


def main(arguments: list[str]) -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--out", type=Path, default=Path("tools/results/mount.json"))
    asked = parser.parse_args(arguments)
    result: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    result["environment"] = describe("numba", "nibabel", "mfusepy", "dipy")
    result["data"] = {f"{SCAN}.nii.gz": sha256(DATA / f"{SCAN}.nii.gz")}
    result["quality"] = "40 dB, preset fast"
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        archive = asked.archive or top / "archive"
        if asked.archive is None:
            inrstore.convert(DATA, archive, psnr=40, preset="fast")
        if {"files", "readers"} & set(asked.only):
            back = exported(archive, top / "back")
        if "files" in asked.only:
            with mounted(archive) as there:
                result["files"] = compare(there, back)
                result["fa maps"] = maps(there, back)
        if "course" in asked.only:
            result["course"] = course(archive)
        if "sequential" in asked.only:
            result["sequential"] = sequential(archive)
        if "find" in asked.only:
            result["find"] = found(top / "many")
        if "readers" in asked.only:
            with mounted(archive) as there:
                result["readers"] = agree(there, back, asked.seconds)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
