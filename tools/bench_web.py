"""How fast the decoder in JavaScript decodes real chunks, in Node: Mvalue/s of each mode.

    python -m tools.bench_web            # writes tools/results/web.json
    python -m tools.bench_web --dry      # printed only
    python -m tools.bench_web --keep DIR # frames are kept there, and taken from there the next time

A diffusion scan at 36 dB by the transform, with a correcting network and without one; a T1 scan without loss by the
predictor, and by byteplanes; one measurement as a sine network (a short fit: its speed is that of its size, which
stands beside it), and with a second one that refines it (superres). The least of a few runs; the bits are checked by
the checksum of each frame.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inrstore.chunk.decode import describe_chunk
from inrstore.chunk.encode import encode_as, encode_chunks
from inrstore.chunk.modes import BYTEPLANES, TRANSFORM
from inrstore.chunk.quality import Target
from inrstore.options import EncodeOptions, Network
from inrstore.store import layout
from inrstore.store.layout import Grid
from inrstore.store.quality import Quality
from tools.bench_rate_data import load
from tools.environment import describe, sha256

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "web.json"
DECODER = HERE.parent / "inrstore" / "views" / "web"
RUNS = 5
DIFFUSION, STRUCTURE, SMALL = "s02", "s07", "s03"


def made() -> Iterator[tuple[str, bytes]]:
    """Give a frame of each kind."""
    volume = load(DIFFUSION, None, 0)
    image, dims = volume.image, layout.image_dims(volume.image.ndim)
    (target,) = Quality(psnr=36.0).chunk_targets(
        Grid(image.shape, image.shape), volume.ranges, dims, lambda _: (image, None)
    )
    for name, options in (("transform", EncodeOptions(mode="transform", preset="fast")),
                          ("transform with a network", EncodeOptions())):  # fmt: skip
        frame = required(encode_as(TRANSFORM, image, target, options=options), name)
        if name != "transform" and "network" not in describe_chunk(frame).details:
            raise SystemExit(f"no network paid for {DIFFUSION}")
        yield name, frame
    anatomy = load(STRUCTURE, None, 0).image
    grid = Grid(anatomy.shape, layout.choose_chunks(anatomy.shape, layout.image_dims(3), layout.LOSSLESS_VALUES))
    chunk = grid.cut(anatomy, next(iter(grid)))
    yield "predictor", encode_chunks([chunk], Target(lossless=True), EncodeOptions(threads=1))[0]
    yield "byteplanes", required(encode_as(BYTEPLANES, chunk, Target(lossless=True)), "byteplanes")
    measurement = np.ascontiguousarray(load(SMALL, None, 0).image[0])
    rmse = 2 * float(np.std(measurement))  # any network keeps it
    for units in (32, 64):
        network = Network(name="siren3d", layers=3, units=units, steps=300)
        options = EncodeOptions(mode="siren", network=network, threads=1)
        yield f"siren of {units} units", encode_chunks([measurement], Target(rmse=rmse), options)[0]
    for name in ("lanczos-siren-srdensenet", "fourier-siren-srno"):
        network = Network(name=name, layers=3, units=32, steps=100, downsample=2, channels=4)
        options = EncodeOptions(mode="siren", network=network, threads=1)
        yield name, encode_chunks([measurement], Target(rmse=rmse), options)[0]


def required(frame: bytes | None, name: str) -> bytes:
    """Return a frame that must be there."""
    if frame is None:
        raise SystemExit(f"{name} cannot code its chunk")
    return frame


def kept(folder: Path) -> dict[str, bytes]:
    """Return frames from a folder, made if it is empty."""
    found = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.chunk"))}
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in made():
            found[name] = data
            (folder / f"{name}.chunk").write_bytes(data)
    return found


def timed(folder: Path) -> dict[str, float]:
    """Return milliseconds of the quickest run for each frame of a folder."""
    command = ["node", str(HERE / "bench_web.mjs"), str(DECODER / "inrstore.js"), str(folder), str(RUNS)]
    times: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return times


def main() -> None:
    """Time all frames, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--keep", type=Path, help="folder of the frames")
    chosen = parser.parse_args()
    if shutil.which("node") is None:
        raise SystemExit("node is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        frames = kept(folder)
        times = timed(folder)
    rows: dict[str, dict[str, Any]] = {}
    for name, data in frames.items():
        described = describe_chunk(data)
        values = int(np.prod(described.shape))
        rows[name] = {
            "mode": described.mode, "shape": described.shape, "bytes": len(data), "ms": round(times[name], 1),
            "mvalue_per_s": round(values / times[name] / 1000, 2), "details": str(described.details),
        }  # fmt: skip
        print(f"{name:26} {rows[name]['mvalue_per_s']:8.2f} Mvalue/s  {described.details}")
    if not chosen.dry:
        version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
        where = {**describe(), "node": version, "tool": sha256(Path(__file__))}
        RESULT.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
