"""Choose the golden chunks, describe and check frames, write folders of them; golden chunks are written once."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrstore.chunk import decode as chunks
from inrstore.chunk import frame
from inrstore.chunk.shared import of
from inrstore.errors import CorruptChunkError

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "specs" / "vectors"
GOLDEN = ROOT / "tests" / "golden" / str(frame.VERSION)

GOLDEN_NAMES = (
    "raw-i2-1d", "raw-f4-3d", "raw-i2-empty", "constant-i2-3d", "constant-f4-nan", "planes-exact-i2-3d",
    "planes-exact-u1-2d", "planes-exact-i1-2d", "planes-exact-f4-exceptions", "planes-exact-i2-box",
    "planes-integer-i2-3d", "planes-integer-u2-channels", "planes-float-f4-channels",
    "planes-float-f8-box-exceptions", "siren-i2-4d", "siren-i2-4d-gains", "siren-i2-4d-lanes", "siren-i2-3d",
    "siren-u1-2d", "siren-i2-1d", "siren-f4-exponent", "siren-i4-exponent", "siren-i2-4d-box",
    "siren-f4-3d-box-exceptions", "siren-i2-3d-limits", "planes-exact-i2-0d", "siren-i2-8d",
    "siren-i2-big-endian", "siren-u2-fortran-big-endian", "planes-exact-bool", "planes-integer-u8-extremes",
    "siren-f2-exceptions", "siren-width-256", "siren-16-layers", "siren-channels-in-the-middle",
    "siren-peaks-1023",
)  # fmt: skip
"""Copied from the vectors as they are at the release."""


def describe(frame_bytes: bytes, shared: Sequence[bytes] = ()) -> dict[str, Any]:
    """Return the entry of a valid frame in an index; `shared` are the parameters that it needs."""
    values = chunks.decode_chunk(frame_bytes, shared=of(*shared))
    little = np.asarray(values, values.dtype.newbyteorder("<"), order="C")
    fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    return {
        "dtype": values.dtype.str,
        "shape": list(values.shape),
        "order": "F" if fortran else "C",
        "mode": chunks.describe_chunk(frame_bytes).mode,
        "sha256": hashlib.sha256(little.tobytes()).hexdigest(),
    } | ({"shared": [base64.b64encode(data).decode() for data in shared]} if shared else {})


def check_refused(name: str, frame_bytes: bytes, error: str, field: str) -> None:
    """Stop unless this package refuses the frame as the vector says."""
    try:
        chunks.decode_chunk(frame_bytes)
    except CorruptChunkError as raised:
        if (type(raised).__name__, raised.field) == (error, field):
            return
        raise SystemExit(f"{name}: refused with {type(raised).__name__} {raised}, not {error} {field}") from raised
    raise SystemExit(f"{name}: not refused")


def write_folder(folder: Path, frames: dict[str, bytes], index: dict[str, dict[str, Any]]) -> None:
    """Replace the contents of a folder of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.chunk"):
        old.unlink()
    for name, data in frames.items():
        (folder / f"{name}.chunk").write_bytes(data)
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in index.items())
    (folder / "index.json").write_text(f"{{\n{lines}\n}}\n")


def write_golden(frames: dict[str, bytes], *, new_version: bool) -> None:
    """Write the golden chunks once; refuse to change what is there."""
    chosen = {name: frames[name] for name in GOLDEN_NAMES}
    changed = [n for n, data in chosen.items()
               if (f := GOLDEN / f"{n}.chunk").exists() and f.read_bytes() != data]  # fmt: skip
    stray = GOLDEN.exists() and {p.stem for p in GOLDEN.glob("*.chunk")} - set(chosen)
    if (changed or stray) and not new_version:
        raise SystemExit(f"golden chunks are immutable; {', '.join([*changed, *(stray or ())])} would change")
    if GOLDEN.exists() and not changed and not stray and not new_version:
        return
    index = {n: describe(d) | {"file_sha256": hashlib.sha256(d).hexdigest()} for n, d in chosen.items()}
    write_folder(GOLDEN, chosen, index)


def collect(source: Callable[[], Iterator[tuple[str, bytes]]]) -> dict[str, bytes]:
    """Return the frames of a generator by name."""
    frames: dict[str, bytes] = {}
    for name, data in source():
        if name in frames or not data:
            raise SystemExit(f"{name}: twice, or empty")
        frames[name] = data
    return frames
