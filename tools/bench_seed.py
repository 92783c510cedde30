"""The table of Nagoor et al. (lossless compression with neighbourhood networks) on two CT scans of our own.

    python -m tools.bench_seed --data build/seed                   # cut and resample the scans: .npy files
    python -m tools.bench_seed --fit-only --out DIR                # train, and code with the trained networks
    python -m tools.bench_seed --nets DIR                          # everything else; tools/results/seed.{json,md}

The second command needs numpy and torch alone, so that it can run on a machine with a GPU. The cube of 11 x 11 x 11 and
the pyramid 13-9-5-1, both with hidden layers of 1024, 512, 256 and 128 units, are trained on the volume itself ("own")
and on the other one ("unseen"), and so is a small network (7 x 7 x 7, 64 and 32 units). "As published" has inputs and
outputs in -1..1 of the range of the image and the plain joint loss; otherwise inputs are differences from near
neighbours. Bits per voxel are those of whole payloads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tools" / "results"
DATA = ROOT / "build" / "seed"
VOLUMES = {"s10": "s10, 1 x 1 x 1 mm", "s11": "s11, 0.84 x 0.84 x 5 mm", "s11-1mm": "s11 resampled to 1 x 1 x 1 mm"}
WIDTHS = (1024, 512, 256, 128)
HOODS = ("cube", "pyramid", "small")
"""Those of the paper, and a cube of 7 x 7 x 7 with hidden layers of 64 and 32 units."""
UNSEEN = {"s10": "s11", "s11": "s10", "s11-1mm": "s10"}
PUBLISHED = "published"

Array = npt.NDArray[Any]


def without_checksums() -> None:
    """Let the package be imported where its one compiled dependency is not installed; payloads need no checksum."""
    try:
        import google_crc32c  # noqa: F401
    except ImportError:
        sys.modules["google_crc32c"] = types.ModuleType("google_crc32c")


without_checksums()  # in the processes that this one starts, too


# ---- volumes -----------------------------------------------------------------------------------------------


def make_volumes(folder: Path) -> None:
    """Write the three volumes as .npy, (z, y, x)."""
    from scipy.ndimage import zoom

    from inrstore.sources import read_source
    from tools.environment import DATA as SCANS

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("s10", "s11"):
        source = read_source(next(SCANS.glob(f"sub-{name}*/ct/*.nii.gz")))
        image = np.ascontiguousarray(source.voxels)
        np.save(folder / f"{name}.npy", image)
    new = zoom(image.astype(np.float64), (5.0 / 1, 0.841797 / 1, 0.841797 / 1), order=3, mode="nearest")
    np.save(folder / "s11-1mm.npy", np.rint(new).clip(image.min(), image.max()).astype(image.dtype))


def volume(folder: Path, name: str, slices: int | None) -> Array:
    """Return a volume, or the first of its slices."""
    return np.ascontiguousarray(np.load(folder / f"{name}.npy")[:slices])


# ---- networks ----------------------------------------------------------------------------------------------


def plan_of(hood: str, published: bool, small: bool) -> Any:
    """Return how to train a network."""
    from inrstore.chunk.inr.fit.lossless import Plan
    from inrstore.chunk.neural.neighbourhood import PYRAMID, cube

    shape = {"cube": cube(1 if small else 5), "pyramid": PYRAMID, "small": cube(1 if small else 3)}[hood]
    widths, rate, batch = (WIDTHS, 1e-3, 8192) if hood != "small" else ((64, 32), 4e-3, 2048)
    if small:
        widths, batch = (16, 8), 512
    return Plan(
        neighbourhood=shape, widths=widths, local=not published, relative=not published, rate=rate, batch=batch, seed=1
    )


def networks_wanted(hoods: list[str], published: bool) -> list[tuple[str, str, bool]]:
    """Return volume, neighbourhood, and whether as published."""
    plain = [(name, hood, False) for name in VOLUMES for hood in hoods]
    return plain + [("s10", hood, True) for hood in hoods if hood != "small"] if published else plain


def name_of(trained_on: str, hood: str, published: bool) -> str:
    """Return the name of a network."""
    return f"{hood}-{trained_on}" + f"-{PUBLISHED}" * published


def pairs() -> list[tuple[str, str]]:
    """Return volumes and the volumes that their networks were trained on."""
    return [(name, other) for name in VOLUMES for other in (name, UNSEEN[name])]


def finish(coding: Any, p: Array, check: int) -> tuple[int, int, float]:
    """Return the bytes of a payload with and without its network, and the seconds to decode it (0: not decoded)."""
    from inrstore.chunk.frame import Reader
    from inrstore.chunk.neural.decode import decode

    shared, here = coding.payload(p, shared=True), coding.payload(p, shared=False)
    seconds = 0.0
    if check:
        lengths, started = coding.volume.lengths, time.perf_counter()
        known = {coding.network.digest: coding.network.data}
        values = decode(Reader(memoryview(shared)), np.dtype("<i2"), lengths[1:], known)
        seconds = time.perf_counter() - started
        whole = coding.volume.inside(coding.padded.reshape(coding.volume.shape))[0].astype(np.int64)
        wanted = whole * coding.header.step + coding.header.base - (1 << 15)
        if not np.array_equal(values, wanted):
            raise SystemExit("a payload does not decode to its values")
    return len(here), len(shared), seconds


def fit(folder: Path, out: Path, options: argparse.Namespace) -> None:
    """Train every network and code every volume with its own and with the other."""
    seconds, published, decoded, small = options.seconds, options.published, options.decoded, options.small
    hoods = options.hoods.split(",")
    import torch

    from inrstore.chunk.inr.fit.lossless import Exact, train
    from inrstore.chunk.neural.encode import choose

    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    slices = 6 if small else None
    images = {name: volume(folder, name, slices) for name in VOLUMES}
    nets, log, started = {}, {}, time.perf_counter()
    for trained_on, hood, as_published in networks_wanted(hoods, published):
        image = images[trained_on].astype(np.int64)
        last = [0.0]

        def report(step: int, error: float, last: list[float] = last) -> None:
            last[0] = error

        begun = time.perf_counter()
        name = name_of(trained_on, hood, as_published)
        nets[name] = train([(image - image.min())[None]], plan_of(hood, as_published, small), device,
                           seconds=seconds, report=report)  # fmt: skip
        log[name] = {"seconds": round(time.perf_counter() - begun, 1), "last_error": round(last[0], 3),
                     "bytes": len(nets[name].data), "parameters": nets[name].parameters}  # fmt: skip
        print(name, log[name], flush=True)
        np.savez(out / "networks.npz", **{n: np.frombuffer(net.data, np.uint8) for n, net in nets.items()})
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    cells: list[tuple[dict[str, Any], Future[tuple[int, int, float]]]] = []
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        for name, trained_on in pairs():
            for hood in hoods:
                for as_published in (False, True):
                    net = nets.get(name_of(trained_on, hood, as_published))
                    coding = None if net is None else choose(images[name], [net])
                    if coding is None:
                        continue
                    p = coding.predict(Exact(device))
                    pick = np.random.default_rng(0).integers(0, len(p), 2000)
                    here = coding.predictions
                    mean = here.near(coding.padded, coding.order[pick])[0]
                    if not np.array_equal(here.predict(coding.padded, coding.order[pick], mean), p[pick]):
                        raise SystemExit(f"{device} and numpy do not agree")
                    cell = {"volume": name, "trained_on": trained_on, "hood": hood, "published": as_published,
                            "voxels": images[name].size, "gain": coding.header.gain}  # fmt: skip
                    del coding.__dict__["order"], coding.__dict__["predictions"]
                    cells.append((cell, pool.submit(finish, coding, p, int(len(cells) < decoded))))
                    print(f"{time.perf_counter() - started:.0f} s: {name} by {trained_on} {hood}", flush=True)
        rows = []
        for cell, done in cells:
            counted, plain, took = done.result()
            row = {**cell, "bytes_with_network": counted, "bytes": plain, "decode_seconds": round(took, 1)}
            rows.append(row)
            print(f"{row} {8 * plain / cell['voxels']:.3f} bit", flush=True)
    where = {"device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu", "torch": torch.__version__,
             "numpy": np.__version__, "seconds_per_network": seconds}  # fmt: skip
    document = {"environment": where, "networks": log, "cells": rows}
    (out / "fit.json").write_text(json.dumps(document, indent=1) + "\n")


# ---- everything else ---------------------------------------------------------------------------------------


def hevc(planes: Array) -> int:
    """Return the bytes of planes as lossless 12-bit video, checked by decoding them again."""
    shape, raw = planes.shape, np.ascontiguousarray(planes, "<u2").tobytes()
    form = ["-f", "rawvideo", "-pix_fmt", "gray12le"]
    size = ["-s", f"{shape[2]}x{shape[1]}"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.hevc"
        how = ["-c:v", "libx265", "-preset", "slow", "-x265-params", "lossless=1:log-level=error", "-f", "hevc"]
        quiet = ["ffmpeg", "-v", "error", "-y"]
        subprocess.run([*quiet, *form, *size, "-i", "-", *how, str(out)], input=raw, check=True)
        back = subprocess.run([*quiet, "-i", str(out), *form, "-"], capture_output=True, check=True).stdout
        if back != raw:
            raise SystemExit("HEVC does not give back what it was given")
        return out.stat().st_size


def peers(image: Array) -> dict[str, int]:
    """Return the bytes of each codec: the image codecs in their best of three orientations, HEVC over slices."""
    from tools.bench_lossless import image_codecs, slices

    plain = np.ascontiguousarray((image.astype(np.int64) - int(image.min())).astype(np.uint16))
    out = {}
    for name, (encode, decode) in image_codecs().items():
        if name == "JPEG XL 5":
            continue
        sizes = []
        for planes in slices(plain).values():
            coded = [encode(plane) for plane in planes]
            if not np.array_equal(decode(coded[0]), planes[0]):
                raise SystemExit(f"{name} does not give back what it was given")
            sizes.append(sum(map(len, coded)))
        out[name] = min(sizes)
        print(f"  {name} {8 * out[name] / image.size:.3f}", flush=True)
    if plain.max() < 4096 and shutil.which("ffmpeg"):
        out["HEVC"] = hevc(plain)
        print(f"  HEVC {8 * out['HEVC'] / image.size:.3f}", flush=True)
    return out


def measured(folder: Path, nets: Path) -> dict[str, dict[str, int]]:
    """Return the bytes of peers for each volume; they are kept in a file beside the networks."""
    kept = nets / "peers.json"
    if kept.exists():
        found: dict[str, dict[str, int]] = json.loads(kept.read_text())
        return found
    found = {}
    for name, title in VOLUMES.items():
        print(title, flush=True)
        found[name] = peers(volume(folder, name, None))
    kept.write_text(json.dumps(found, indent=1) + "\n")
    return found


def linear(image: Array) -> int:
    """Return the bytes of the payload of mode predictor, the whole volume in one chunk."""
    from inrstore.chunk.predictor import encode as predictor

    found = predictor.encode(image)
    if found is None:
        raise SystemExit("the predictor does not hold this volume")
    return len(found)


def decode_rate(image: Array, data: bytes) -> float:
    """Return million voxels a second of the decoder in numpy, on some slices."""
    from inrstore.chunk.frame import Reader
    from inrstore.chunk.neural.decode import decode
    from inrstore.chunk.neural.encode import encode
    from inrstore.chunk.neural.network import read_network

    net = read_network(data)
    payload = encode(image, [net])
    assert payload is not None
    started = time.perf_counter()
    values = decode(Reader(memoryview(payload)), image.dtype, image.shape, {net.digest: net})
    seconds = time.perf_counter() - started
    if not np.array_equal(values, image):
        raise SystemExit("a payload does not decode to its values")
    return image.size / 1e6 / seconds


def joined(nets: list[Path]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what several runs of `--fit-only` say, as one, and the bytes of all networks."""
    every = [json.loads((folder / "fit.json").read_text()) for folder in nets]
    document = {"environment": [one["environment"] for one in every],
                "networks": {name: entry for one in every for name, entry in one["networks"].items()},
                "cells": [cell for one in every for cell in one["cells"]]}  # fmt: skip
    loaded = [np.load(folder / "networks.npz") for folder in nets]
    return document, {name: one[name].tobytes() for one in loaded for name in one.files}


def table(folder: Path, nets: list[Path], rate_slices: int) -> None:
    """Measure the peers, join what the networks reached, write the result files."""
    from tools.environment import describe

    others = measured(folder, nets[0])
    fitted, networks = joined(nets)
    rows, rates = [], {}
    for name, title in VOLUMES.items():
        image = volume(folder, name, None)
        print(title, image.shape, flush=True)
        found = {**others[name], "linear": linear(image)}
        row: dict[str, Any] = {"volume": name, "title": title, "shape": list(image.shape), "bytes": found,
                               "sha256": hashlib.sha256(image.tobytes()).hexdigest()}  # fmt: skip
        row["bits"] = {codec: round(8 * size / image.size, 4) for codec, size in found.items()}
        row["networks"] = [
            {**cell, "bits": round(8 * cell["bytes"] / image.size, 4),
             "bits_with_network": round(8 * cell["bytes_with_network"] / image.size, 4)}
            for cell in fitted["cells"] if cell["volume"] == name
        ]  # fmt: skip
        rows.append(row)
    for hood in HOODS if rate_slices else ():
        if name_of("s10", hood, False) not in networks:
            continue
        image = volume(folder, "s10", rate_slices)
        rates[hood] = round(decode_rate(image, networks[name_of("s10", hood, False)]), 4)
        print(hood, rates[hood], "Mvoxel/s", flush=True)
    document = {"environment": describe("imagecodecs", "scipy"), "fit": fitted["environment"],
                "networks": fitted["networks"], "decode_mvoxel_per_s": rates, "rows": rows}  # fmt: skip
    (RESULTS / "seed.json").write_text(json.dumps(document, indent=1) + "\n")
    text = markdown(rows)
    (RESULTS / "seed.md").write_text(text)
    print(text)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table for people: bits per voxel, in brackets those with the network in the payload."""
    lines = ["| | " + " | ".join(row["title"] for row in rows) + " |", "|---" * (1 + len(rows)) + "|"]
    for codec in ("JPEG-LS", "JPEG 2000", "JPEG XL 9", "HEVC", "linear"):
        cells = [f"{row['bits'][codec]:.3f}" if codec in row["bits"] else "-" for row in rows]
        lines.append(f"| {codec} | " + " | ".join(cells) + " |")
    for published in (False, True):
        for hood in HOODS:
            for own in (True, False):
                cells = []
                for row in rows:
                    wanted = hood, row["volume"] if own else UNSEEN[row["volume"]], published
                    found = [c for c in row["networks"] if (c["hood"], c["trained_on"], c["published"]) == wanted]
                    cells.append(f"{found[0]['bits']:.3f} ({found[0]['bits_with_network']:.3f})" if found else "-")
                if any(cell != "-" for cell in cells):
                    title = f"{hood}, {'own' if own else 'unseen'}" + ", as published" * published
                    lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="write the volumes into this folder, nothing else")
    parser.add_argument("--volumes", type=Path, default=DATA, help="where they are")
    parser.add_argument("--fit-only", action="store_true", help="train and code with networks")
    parser.add_argument("--out", type=Path, default=DATA, help="for networks.npz and fit.json")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each network")
    parser.add_argument("--published", action="store_true", help="also networks with inputs as published")
    parser.add_argument("--decoded", type=int, default=0, help="how many payloads are decoded with numpy, too")
    parser.add_argument("--hoods", default="cube,pyramid", help="which networks; small is the third")
    parser.add_argument("--nets", type=Path, nargs="+", help="folders with networks.npz and fit.json: make the table")
    parser.add_argument("--rate-slices", type=int, default=24, help="slices whose decoding is timed; 0: none")
    parser.add_argument("--small", action="store_true", help="a trial: tiny networks, six slices")
    options = parser.parse_args()
    if options.data:
        make_volumes(options.data)
    elif options.fit_only:
        fit(options.volumes, options.out, options)
    elif options.nets:
        table(options.volumes, options.nets, options.rate_slices)
    else:
        parser.error("one of --data, --fit-only and --nets")


if __name__ == "__main__":
    main()
