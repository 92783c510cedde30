"""Compare samples of the same AV1 streams: dav1d in PyAV, and another dav1d, as that of another processor.

    python -m tools.compare_dav1d --name aarch64 -- qemu-aarch64-static -L root root/usr/bin/dav1d

Streams are those of all valid vectors of mode av1 and of two scans at 40 dB. Behind `--` stands the command that runs
the other dav1d. Results go to tools/results/dav1d.json.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).resolve().parent / "results" / "dav1d.json"
SCANS = ("s11", "s08")


def frames() -> Iterator[tuple[str, bytes]]:
    """Yield names and frames in mode av1."""
    from inrstore.chunk.encode import encode_chunks
    from inrstore.chunk.quality import Target
    from inrstore.options import EncodeOptions
    from tools.bench_rate_data import load

    for folder in ("subset", "uncommon"):
        for path in sorted((ROOT / "specs" / "vectors" / folder).glob("av1-*.chunk")):
            yield path.stem, path.read_bytes()
    for name in SCANS:
        image = load(name, None, 0).image
        rmse = (float(image.max()) - float(image.min())) / 100
        yield f"{name} 40 dB", encode_chunks([image], Target(rmse=rmse), EncodeOptions(mode="av1"))[0]


def compare(data: bytes, command: list[str]) -> dict[str, Any]:
    """Decode the stream of a frame twice."""
    from inrstore.chunk import dtypes, envelope, frame
    from inrstore.chunk.av1 import library, obu
    from inrstore.chunk.av1.decode import read_header
    from inrstore.chunk.frame import Reader

    parsed = frame.unpack(data, None, None)
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    box = envelope.read(reader, parsed.shape, kind).box_shape
    _, count, height, width = read_header(reader, kind, box).frames(box)
    stream = reader.take(reader.remaining, "av1.stream")
    units = obu.temporal_units(memoryview(stream), count, width, height)
    ours = b"".join(plane.astype("<u2").tobytes() for plane in library.decode(units, width, height))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.obu"), Path(folder, "out.yuv")
        source.write_bytes(b"".join(units))
        done = subprocess.run([*command, "-q", "-i", str(source), "-o", str(target)], capture_output=True, check=False)
        if done.returncode:
            return {"frames": count, "height": height, "width": width, "equal": False, "error": done.stderr.decode()}
        made = np.fromfile(target, "<u2").reshape(count, -1)[:, : height * width]
    theirs = np.ascontiguousarray(made).tobytes()
    return {"frames": count, "height": height, "width": width, "bytes": len(stream),
            "sha256": hashlib.sha256(ours).hexdigest(), "equal": ours == theirs}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Compare, write, print."""
    from tools.bench_rate_data import write_rows
    from tools.environment import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the other processor or build, for the result")
    parser.add_argument("command", nargs="+", help="that runs the other dav1d")
    options = parser.parse_args(arguments)
    told = subprocess.run([*options.command, "--version"], capture_output=True, text=True, check=True)
    rows = []
    for name, data in frames():
        rows.append({"name": name, **compare(data, options.command)})
        print(rows[-1], flush=True)
    equal = sum(row["equal"] for row in rows)
    head = {"environment": describe("av"), "other": options.name, "other_dav1d": (told.stdout + told.stderr).strip(),
            "streams": len(rows), "equal": equal}  # fmt: skip
    write_rows(RESULT, head, rows)
    print(f"{equal} of {len(rows)} streams are equal")
    return int(equal < len(rows))


if __name__ == "__main__":
    sys.exit(main())
