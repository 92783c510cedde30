"""What each part of the lossless model is worth: bytes of four models on the real scans.

    python -m tools.bench_models            # every scan; writes tools/results/models.{csv,json}
    python -m tools.bench_models s03 s07    # some of them, printed only

The models, from plain to ours:

plain      one least-squares weight vector for each parity pass of an interlaced lattice; ideal code lengths
one set    the coder with one set of weights for each stage; bytes of its frames
mixtures   the coder with up to eight sets, chosen by the activity around a value; bytes of its frames
regions    what the encoder writes: sets that may also differ by place; bytes of its frames, which are decoded

The plain model is coarse to fine: the lattice of every 8th voxel is known (12 bits a voxel), then its stride is halved
in each axis, three times, in seven passes of one parity each. A voxel is predicted from those known so far among the
3 x 3 x 3 around it and those two and three steps away on the axes; in 4-D also from the same voxel in the eight
measurements before (the first again where there are fewer), with the same weights for all measurements but the first.
Of each pass some 100,000 voxels make the weights, which count 16 bits each. The residuals have
24 contexts, equally full, of the mean of what the nearest known residuals are, and cost their entropy in the context
and log2(n) / 2 bits for each level that occurs, as an adaptive coder would: no real coder does better with the model.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.predictor import encode as predictor
from inrstore.sources import read_source
from inrstore.store import layout
from inrstore.store.layout import Grid
from tools.environment import DATA, describe, sha256

RESULTS = Path(__file__).resolve().parent / "results"
LEVELS, CONTEXTS, SAMPLE, EARLIER, PAD = 3, 24, 100_000, 8, 3
WEIGHT_BITS, COARSE_BITS = 16, 12
MODELS = ("plain", "one_set", "mixtures", "regions")
GOAL = 0.02

Array = npt.NDArray[Any]
Offset = tuple[int, int, int]
Slices = tuple[slice, ...]


# ---- the plain model ---------------------------------------------------------------------------------------


class Plain:
    """The plain model of an image (t, z, y, x), made level by level."""

    def __init__(self, image: Array) -> None:
        self.volumes = image.astype(np.float32).reshape(-1, *image.shape[-3:])
        self.errors, self.activities = list[Array](), list[Array]()
        self.bits = 0.0

    def run(self) -> int:
        """Return the ideal size in bytes."""
        every = 1 << LEVELS
        self.bits = COARSE_BITS * self.volumes[:, ::every, ::every, ::every].size
        residual = np.full(self.volumes.shape, 8, np.float32)  # of the coarse lattice nothing is known
        for level in reversed(range(LEVELS)):
            at = (slice(None), *[slice(None, None, 1 << level)] * 3)
            self._level(self.volumes[at], residual[at])
        if self.errors:
            self.bits += entropy(np.concatenate(self.errors), np.concatenate(self.activities))
        return int(np.ceil(self.bits / 8))

    def _level(self, fine: Array, residual: Array) -> None:
        """Predict the seven passes of a level, and keep what is left in `residual`."""
        pads = [(0, 0), *[(PAD, PAD)] * 3]
        # Mirrored about the last voxel, what is beyond an edge is of its own parity, so it is known when that is.
        values, before = (np.pad(one, pads, mode="reflect") for one in (fine, residual))
        known = {(0, 0, 0)}
        for parity in sorted(itertools.product((0, 1), repeat=3), key=sum)[1:]:
            own = _lattice(parity, (0, 0, 0), 0, fine.shape[1:])
            places = [_lattice(parity, offset, PAD, fine.shape[1:]) for offset in _neighbours(parity, known)]
            if not fine[0][own].size:
                continue
            for members in (range(1), range(1, len(fine))):
                if members:
                    self._pass(members, fine, own, values, places, before, residual)
            before[(slice(None), *_lattice(parity, (0, 0, 0), PAD, fine.shape[1:]))] = residual[(slice(None), *own)]
            known.add(parity)

    def _pass(self, members: range, fine: Array, own: Slices, values: Array, places: list[Slices], before: Array,
              residual: Array) -> None:  # fmt: skip
        """Predict the voxels of one parity in some measurements with the same weights."""

        def rows_of(t: int) -> Array:
            views = [values[t][place] for place in places]
            views += [fine[max(0, t - back)][own] for back in range(1, EARLIER + 1) if t]
            return np.stack([view.reshape(-1) for view in views])

        step = max(1, fine[0][own].size * len(members) // SAMPLE)
        rows = np.concatenate([rows_of(t)[:, t % step :: step] for t in members], 1).astype(np.float64)
        wanted = np.concatenate([fine[t][own].reshape(-1)[t % step :: step] for t in members])
        weights = solve(rows, wanted)
        self.bits += WEIGHT_BITS * len(weights)
        for t in members:
            target = fine[t][own]
            predicted = applied(weights, rows_of(t)).reshape(target.shape)
            self.errors.append((target - np.rint(predicted)).astype(np.int64).reshape(-1))
            self.activities.append(np.mean([before[t][place] for place in places[:8]], 0).reshape(-1))
            residual[t][own] = np.abs(target - predicted)


def _lattice(parity: Offset, offset: Offset, pad: int, shape: tuple[int, ...]) -> Slices:
    """Return every second voxel of a parity, moved by an offset, in an array with that much padding."""
    return tuple(slice(pad + p + o, pad + o + n, 2) for p, o, n in zip(parity, offset, shape, strict=True))


def _neighbours(parity: Offset, known: set[Offset]) -> Iterator[Offset]:
    """Yield the offsets to known voxels, the nearest first."""
    box = set(itertools.product((-1, 0, 1), repeat=3))
    axes = {tuple(d * (i == axis) for i in range(3)) for axis in range(3) for d in (-3, -2, 2, 3)}
    for offset in sorted(box | axes, key=lambda o: (sum(d * d for d in o), o)):
        a, b, c = ((p + d) % 2 for p, d in zip(parity, offset, strict=True))
        if (a, b, c) in known:
            yield offset[0], offset[1], offset[2]


def centred(rows: Array) -> tuple[Array, Array]:
    """Return the mean of the four nearest, and what the others differ from it, with a constant."""
    centre = rows[:4].mean(0)
    return centre, np.concatenate([rows - centre, np.ones((1, rows.shape[1]), rows.dtype)])


def solve(rows: Array, wanted: Array) -> Array:
    """Return least-squares weights."""
    centre, rows = centred(rows)
    gram = rows @ rows.T + np.eye(len(rows)) * (1e-6 * rows.shape[1] + 1e-3)
    found: Array = np.linalg.solve(gram, rows @ (wanted - centre))
    return found


def applied(weights: Array, rows: Array) -> Array:
    """Return what weights predict."""
    centre, rows = centred(rows)
    found: Array = centre + weights.astype(np.float32) @ rows
    return found


def entropy(errors: Array, activity: Array) -> float:
    """Return the bits of residuals in contexts of activity."""
    edges = np.quantile(activity[:: max(1, activity.size // 1_000_000)], np.linspace(0, 1, CONTEXTS + 1)[1:-1])
    context, bits = np.searchsorted(edges, activity), 0.0
    for c in range(CONTEXTS):
        mine = errors[context == c]
        if mine.size:
            counts = np.unique(mine, return_counts=True)[1]
            bits -= float((counts * np.log2(counts / mine.size)).sum())
            bits += len(counts) * np.log2(mine.size + 1) / 2
    return bits


# ---- ours --------------------------------------------------------------------------------------------------


def coded_bytes(image: Array, *, sets: int, regions: bool, check: bool = False) -> int:
    """Return the bytes of the frames of an image, cut as the converter does."""
    grid = Grid(image.shape, layout.choose_chunks(image.shape, layout.image_dims(image.ndim), layout.LOSSLESS_VALUES))
    total = 0
    for index in grid:
        values = np.ascontiguousarray(grid.cut(image, index))
        core, envelope = envelopes.crop(values)
        payload = predictor.encode(core, envelope.mask, sets=sets, regions=regions)
        if payload is None:
            data = min((encode_as(mode, values) or b"" for mode in (modes.BYTEPLANES, modes.RAW)), key=len)
        else:
            data = seal(modes.PREDICTOR, values, envelopes.write(envelope, values.shape) + payload, values)
        if check and not np.array_equal(decode_chunk(data), values):
            raise SystemExit("a frame does not give back what it was made of")
        total += len(data)
    return total


def measure(path: Path) -> dict[str, Any]:
    """Return the row of one scan."""
    image = read_source(path).voxels
    row: dict[str, Any] = {
        "scan": path.name.split("_")[0].removeprefix("sub-"),
        "sha256": sha256(path),
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "plain": Plain(image).run(),
        "one_set": coded_bytes(image, sets=1, regions=False),
        "mixtures": coded_bytes(image, sets=predictor.SETS, regions=False),
        "regions": coded_bytes(image, sets=predictor.SETS, regions=True, check=True),
    }
    return row | {"smaller_than_plain": round(1 - row["regions"] / row["plain"], 4)}


def text(row: dict[str, Any]) -> str:
    """Return a row for people."""
    return f"{row['scan']:12} " + " ".join(f"{row[m]:>11,}" for m in MODELS) + f"  {row['smaller_than_plain']:+.2%}"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of what ours saves against the plain model, and the scans where it is less than the goal."""
    mean = float(np.mean([row["smaller_than_plain"] for row in rows]))
    below = [row["scan"] for row in rows if row["smaller_than_plain"] < GOAL]
    return {"mean_smaller_than_plain": round(mean, 4), "goal": GOAL, "scans_below_the_goal": below}


def write(rows: list[dict[str, Any]]) -> None:
    """Write the result files."""
    document = {"environment": describe("nibabel"), **summary(rows), "rows": rows}
    (RESULTS / "models.json").write_text(json.dumps(document, indent=1) + "\n")
    with (RESULTS / "models.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["scan", *(f"{name}_bytes" for name in MODELS), "smaller_than_plain"])
        out.writerows([row["scan"], *(row[name] for name in MODELS), row["smaller_than_plain"]] for row in rows)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scans", nargs="*", help="s01 ... s12; all and result files if none is named")
    wanted = parser.parse_args().scans
    paths = sorted(DATA.glob("sub-*/*/*.nii.gz"))
    if wanted:
        paths = [path for path in paths if any(path.name.startswith(f"sub-{name}") for name in wanted)]
    print(f"{'scan':12} " + " ".join(f"{name:>11}" for name in MODELS))
    rows = []
    for path in paths:
        rows.append(measure(path))
        print(text(rows[-1]), flush=True)
    print(summary(rows))
    if not wanted:
        write(rows)


if __name__ == "__main__":
    main()
