"""What single features of the format are worth, in bytes and in time to decode, on the real scans.

It ran at commit a5ebbd3, with the modules and the format of that time: much of what it measures was removed since
(specs/decisions/0008-what-features-are-worth.md). To run it again, check that commit out.

    pip install -e ".[bench]"
    OPENBLAS_NUM_THREADS=1 python -m tools.bench_features                  # everything; about half an hour of one core
    OPENBLAS_NUM_THREADS=1 python -m tools.bench_features --parts masks    # of lossless, small, tables, lossy, masks
    python -m tools.bench_features --summary                               # only print what the results say

Each feature is compared with its absence or with something simpler. `percent` is by how much frames grow without
the feature: 100 (without / with - 1). Seconds are those of the processor for all frames of a scan, the least of
three runs; other work on the machine moves them by some 5 to 10 %.

lossless: chunks as the converter cuts them, the mode predictor; the encoder is told not to use the feature, the
    bytes are those of whole frames, decoded again and compared. Where a rule of the format itself is another one
    (edges, blocks, the matrix of regions), encoder and decoder are both changed.
small: the same for one slice (3-D scans) or the first measurement (4-D).
tables: the same differences and contexts coded with other tables; bytes by the logarithms of the counts.
lossy: whole volumes as one chunk, the mode transform; the coefficients of the usual encoder are coded again in
    another way, so the quality is the same. What a search of the step could make of that is left out.
masks: a head mask made of each scan (threshold of Otsu on the mean over measurements, closed, the holes of each slice
    filled), coded in other ways; percent of a lossy frame with that mask.

Results: tools/results/features.json (a row for each feature and scan) and features.csv (the same, shorter).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from inrstore.archive.layout import Grid
from inrstore.archive.quality import Promise
from inrstore.fit import least_squares
from inrstore.fit import predictor as fit_predictor
from inrstore.fit import transform_choice as choice
from inrstore.format import chunk as chunks_
from inrstore.format import frame, integers, normalize
from inrstore.format import mask as masks
from inrstore.format.predictor import planes, regions, stages, tables
from inrstore.format.predictor.layout import Layout
from inrstore.format.rans import TOTAL
from inrstore.format.transform import adaptive, lanes
from inrstore.format.transform import decode as transform
from inrstore.format.transform.walk import walk

from inrstore import candidates
from inrstore.archive import layout as archive_layout
from inrstore.limits import MAX_PREDICTOR_REGIONS_PART
from tools.bench_rate_data import DIFFUSION, ORDER, Volume, load
from tools.environment import describe

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("lossless", "small", "tables", "lossy", "masks")
RUNS, SEED = 3, 0
ORDER_CODED = 2  # of Exp-Golomb escapes: the one that is coded and decoded, not only counted
FOUR_D = (*DIFFUSION, "s12")
PSNR = {name: (36.0, 40.0) if name in FOUR_D else (35.0, 40.0, 45.0) for name in ORDER}
TOGETHER = "wide, edges, two sizes of blocks, coded matrix, six tails, three points"
SMALL = ("s11", "s08", "s03", "s02")
MASKED_PSNR = {name: 36.0 if name in FOUR_D else 40.0 for name in ORDER}
KEY = ("part", "feature", "without", "scan", "asked")

Array = npt.NDArray[Any]
Row = dict[str, Any]
Patch = tuple[Any, str, Any]

_COUNTS = tables.counts


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Replace attributes of the package for a while."""
    with ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def seconds(work: Callable[[], Any], runs: int = RUNS) -> tuple[float, Any]:
    """Return the least processor time of some runs, and what the last one gave."""
    best, out = math.inf, None
    for _ in range(runs):
        begin = time.process_time()
        out = work()
        best = min(best, time.process_time() - begin)
    return best, out


def row(part: str, feature: str, without: str, volume: Volume, asked: float | None, sizes: tuple[float, float],
        decode: tuple[float | None, float | None] = (None, None), **more: Any) -> Row:  # fmt: skip
    """Return a row of the results."""
    rounded = [None if s is None else round(s, 4) for s in decode]
    return {"part": part, "feature": feature, "without": without, "scan": volume.name, "asked": asked,
            "bytes_with": round(sizes[0]), "bytes_without": round(sizes[1]),
            "percent": round(100 * (sizes[1] / sizes[0] - 1), 3),
            "decode_with_s": rounded[0], "decode_without_s": rounded[1], **more}  # fmt: skip


# ---- lossless ----------------------------------------------------------------------------------------------


def _nothing(*_: Any) -> None:
    """Do nothing."""


def _zeros_around(values: Array) -> planes.Padded:
    """Return planes (plane, row, column) with zeros around them."""
    out = planes.Padded(*values.shape[1:], len(values))
    out.inside[...] = values.transpose(1, 2, 0)
    return out


def _one_room(values: int) -> list[Patch]:
    return [(Layout, "room", property(lambda _: values))]


def _without_phase(scales: Array, degrees: int, peak: int, escape: int, _: int) -> Array:
    """Return the same counts for all phases."""
    return _COUNTS(scales, degrees, peak, escape, -1)


def _one_point(scales: Array, degrees: int, peak: int, escape: int, phase: int) -> Array:
    """Return counts of the middle of each value alone."""
    if phase < 0:
        return _COUNTS(scales, degrees, peak, escape, phase)
    k = np.arange(-peak, peak + 1, dtype=np.int64)
    point = 24 * k - 6 * phase + 9
    square = np.maximum(1, scales.astype(np.int64)[:, None] ** 2 * degrees * 576 >> 12)
    weight = (square / (square + point * point)) ** ((degrees + 1) / 2)
    spare = TOTAL - len(k) - escape
    out = (1 + weight * spare / weight.sum(1, keepdims=True)).astype(np.int64)
    out[np.arange(len(out)), weight.argmax(1)] += TOTAL - escape - out.sum(1)
    return np.concatenate([out, np.full((len(scales), 1), escape)], 1)


def _counts(made: Callable[..., Array]) -> list[Patch]:
    """Return what makes counts in another way."""
    return [(module, "counts", made) for module in (least_squares, tables)]


def _one_family(degrees: int) -> list[Patch]:
    return [(module, "TAILS", (degrees,)) for module in (least_squares, tables)]


_NO_PADS: list[Patch] = [(planes.Padded, name, _nothing) for name in ("pad_right", "pad_left", "pad_all")]
LOSSLESS: dict[tuple[str, str], tuple[str, list[Patch]]] = {
    ("regions", "same weights everywhere"): (
        "regions", [(fit_predictor, "choose_region", lambda *_: None)]),
    ("regions and their larger blocks", "no field of the header for them"): (
        "region flag", [(fit_predictor, "with_places", lambda layout, _: layout)]),
    ("coded matrix", "the plain matrix of 12.3"): (
        "regions", [(regions, "write_coded_matrix", integers.write_matrix),
                    (regions, "read_coded_matrix", integers.read_matrix)]),
    ("zeros and flag stream", "zeros as all other values"): (
        "zeros", [(fit_predictor, "_has_background", lambda _: False)]),
    ("wide", "always narrow"): ("wide", [(fit_predictor, "_pays_wide", lambda *_: False)]),
    ("narrow", "always wide"): ("narrow", [(fit_predictor, "_pays_wide", lambda *_: True)]),
    ("parts", "whole slices"): ("parts", [(fit_predictor, "_parted", lambda layout: layout)]),
    ("blocks", "one block for each stage"): ("several blocks", _one_room(1 << 40)),
    ("two sizes of blocks", "the larger for all"): ("several blocks", _one_room(MAX_PREDICTOR_REGIONS_PART)),
    ("lanes", "as many as the values say"): ("lanes", [(fit_predictor, "with_lanes", lambda layout, _: layout)]),
    ("edges", "zeros outside the own plane"): ("any", _NO_PADS),
    ("edges of all planes", "zeros outside any plane"): ("any", [*_NO_PADS, (stages, "with_edges", _zeros_around)]),
    (TOGETHER, "always narrow, zeros, the larger, the plain matrix, n = 7, one point"): (
        "any", [(fit_predictor, "_pays_wide", lambda *_: False), *_one_room(MAX_PREDICTOR_REGIONS_PART),
                *_NO_PADS, (stages, "with_edges", _zeros_around),
                (regions, "write_coded_matrix", integers.write_matrix),
                (regions, "read_coded_matrix", integers.read_matrix), *_one_family(7), *_counts(_one_point)]),
}  # fmt: skip
"""What is left out and what stands in its place, where it is used, and how the package is told."""


def uses(layout: Layout) -> set[str]:
    """Return the features that a layout has."""
    size = max(1, layout.room // layout.padded)
    most = min(16, layout.lengths[0]) * -(-layout.lengths[1] // 2) * layout.parts
    found = {"any", "wide" if layout.wide else "narrow"}
    found |= {"region flag"} if layout.region is not None else set()
    found |= {"regions"} if layout.has_regions else set()
    found |= {"zeros"} if layout.zeros else set()
    found |= {"parts"} if layout.parts > 1 else set()
    found |= {"lanes"} if layout.lanes is not None else set()
    if most > size:
        found |= {"several blocks"} | ({"several small blocks"} if layout.region is None else set())
    return found


class Kept:
    """What encoders of chunks ended with, so that their streams can be written again."""

    def __init__(self) -> None:
        self.ended: list[tuple[Any, bytes]] = []
        self._write = fit_predictor._Encoder._with_streams

    def patch(self) -> Patch:
        """Return what keeps the encoders."""

        def write(encoder: Any, stages_: bytes) -> bytes:
            self.ended.append((encoder, stages_))
            return self._write(encoder, stages_)

        return fit_predictor._Encoder, "_with_streams", write

    def frames(self, cut: Sequence[Array]) -> list[bytes]:
        """Return the frames of all chunks with their streams written anew."""
        out = []
        for chunk, (encoder, stages_) in zip(cut, self.ended, strict=True):
            _, envelope = normalize.crop(chunk, None)
            payload = normalize.write(envelope, chunk.shape) + self._write(encoder, stages_)
            out.append(chunks_.seal(frame.PREDICTOR, chunk, payload))
        return out

    def layouts(self) -> list[Layout]:
        """Return the layouts, with the lanes that were chosen last."""
        out = []
        for encoder, stages_ in self.ended:
            size = len(stages_) + encoder._tiles.size  # about; only small chunks are near the limit
            out.append(fit_predictor.with_lanes(encoder._layout, size))
        return out


def predicted(cut: Sequence[Array]) -> list[bytes] | None:
    """Return the frames of all chunks in the mode predictor, or None if it does not hold one."""
    out = [candidates.predicted(chunk) for chunk in cut]
    return None if any(f is None for f in out) else [f for f in out if f is not None]


def decoded(frames: Sequence[bytes], cut: Sequence[Array], runs: int = RUNS) -> float:
    """Return seconds to decode; refuse values that are not those of the chunks."""
    best, found = seconds(lambda: [chunks_.decode_chunk(f) for f in frames], runs)
    if any(not np.array_equal(a, b) for a, b in zip(found, cut, strict=True)):
        raise SystemExit("a variant does not give back what it was given")
    return best


def measure_lossless(volume: Volume, parts: Sequence[str], only: str = "") -> Iterator[Row]:
    """Yield the rows of the predictor; of lossless ones those whose feature has `only` in its name."""
    image = volume.image
    dims = archive_layout.image_dims(image.ndim)
    grid = Grid(image.shape, archive_layout.choose_chunks(image.shape, dims, archive_layout.LOSSLESS_VALUES))
    cut, kept = [np.ascontiguousarray(grid.cut(image, index)) for index in grid], Kept()
    with patched([kept.patch()]):
        frames = predicted(cut)
    if frames is None:
        return
    with_s, size = decoded(frames, cut), sum(map(len, frames))
    used = [uses(layout) for layout in kept.layouts()]
    every = set().union(*used)
    print(f"{volume.name}: {len(cut)} chunks, {size:,} bytes, {with_s:.2f} s, {sorted(every)}", flush=True)
    rows = list(measure_tables(volume, kept, cut, size, with_s)) if "tables" in parts else []
    kept.ended.clear()  # they hold every symbol
    part = "small" if "small" in parts else "lossless"
    for (feature, without), (where, patches) in LOSSLESS.items() if part in parts else ():
        count = sum(where in one for one in used)
        if not count or only not in feature:
            continue
        with patched(patches):
            others = predicted(cut)
            if others is None:
                print(f"{volume.name} {feature}: a limit of the format forbids {without}", flush=True)
                continue
            without_s = decoded(others, cut)
        pair = size, sum(map(len, others))
        rows.append(row(part, feature, without, volume, None, pair, (with_s, without_s), frames=count))
        print(line(rows[-1]), flush=True)
    with_s = min(with_s, decoded(frames, cut, 2))  # once more, for the machine may have been busier at first
    yield from (r | {"decode_with_s": round(with_s, 4)} if r["decode_with_s"] is not None else r for r in rows)


# ---- tables ------------------------------------------------------------------------------------------------

TAILS: dict[str, tuple[int, ...]] = {
    "one family, n = 3": (3,), "one family, n = 5": (5,), "one family, n = 7": (7,), "one family, n = 15": (15,),
    "two families, n = 3, 15": (3, 15), "two families, n = 5, 31": (5, 31), "three families, n = 3, 7, 31": (3, 7, 31),
}  # fmt: skip


def bell_bits(bell: tables.Bell, errors: Array, phases: Array) -> float:
    """Return the bits of a context: symbols, escapes, low bits, the eight bytes of its tables."""
    symbol = (errors + ((1 << bell.shift) >> 1)) >> bell.shift
    inside = np.abs(symbol) <= bell.peak
    entry = np.where(inside, symbol + bell.peak, 2 * bell.peak + 1)
    made = bell.tables()
    which = phases if bell.phased else np.zeros_like(phases)
    seen = np.bincount(which * (2 * bell.peak + 2) + entry, minlength=len(made) * (2 * bell.peak + 2))
    counts = np.concatenate(made)
    coded = float((seen * (math.log2(TOTAL) - np.log2(counts))).sum())
    return coded + 16 * np.count_nonzero(~inside) + bell.shift * np.count_nonzero(inside) + 64


def stored_bits(bell: tables.Bell, errors: Array, phases: Array) -> float:
    """Return the bits of a context with a stored table: code lengths in eighths, the differences of them in Rice codes.

    A table of one phase is stored for -K..K and the escape, its mirror image serves the opposite phase; without
    phases half a table is enough. The cheaper of the two is taken.
    """
    symbol = (errors + ((1 << bell.shift) >> 1)) >> bell.shift
    inside = np.abs(symbol) <= bell.peak
    k = bell.peak
    rest = 16 * np.count_nonzero(~inside) + bell.shift * np.count_nonzero(inside) + 8 * 4
    whole = np.zeros((4, 2 * k + 2))
    np.add.at(whole, (phases, np.where(inside, symbol + k, 2 * k + 1)), 1)
    mirror = np.concatenate([whole[::-1, 2 * k :: -1][:, : 2 * k + 1], whole[::-1, -1:]], 1)
    phased = (whole + mirror)[:2]  # of phases 0 and 1, with what 3 and 2 saw
    flat = (whole + mirror).sum(0) / 2
    found = [_stored(flat, half=True)]
    if bell.phased:
        found.append(sum(_stored(one, half=False) for one in phased))
    return min(found) + rest


def _stored(seen: Array, half: bool) -> float:
    """Return the bits of symbols and of their table."""
    total = seen.sum()
    if not total:
        return 0.0
    units = np.clip(np.rint(8 * np.log2(total / (seen + 0.4))), 0, 8 * 14).astype(np.int64)
    share = np.maximum(1, np.floor(2.0 ** (14 - units / 8)))
    share *= TOTAL / share.sum()
    middle = (len(seen) - 1) // 2
    stored = np.append(units[middle:-1] if half else units[:-1], units[-1])
    steps = np.diff(stored, prepend=stored[:1])
    folded = np.where(steps < 0, -2 * steps - 1, 2 * steps)
    table = 8 + 8 + min(int((folded >> k).sum()) + (k + 1) * len(folded) for k in range(8))
    return float((seen * (math.log2(TOTAL) - np.log2(share))).sum()) + table


def measure_tables(volume: Volume, kept: Kept, cut: Sequence[Array], size: int, with_s: float) -> Iterator[Row]:
    """Yield the rows of section 12.7."""
    fit = least_squares.fit_bell
    runs: list[tuple[Array, Array]] = []

    def watch(errors: Array, phases: Array) -> tables.Bell:
        runs.append((errors, phases))
        return fit(errors, phases)

    with patched([(fit_predictor, "fit_bell", watch)]):
        for encoder, stages_ in kept.ended:
            kept._write(encoder, stages_)
    bells = [fit(*run) for run in runs]
    usual = sum(bell_bits(bell, *run) for bell, run in zip(bells, runs, strict=True))
    phased = sum(bell.phased for bell in bells)

    def refitted() -> float:
        return sum(bell_bits(fit(*run), *run) for run in runs)

    def out(feature: str, without: str, bits: float, decode: tuple[float | None, float | None] = (None, None)) -> Row:
        found = row("tables", feature, without, volume, None, (size, size + (bits - usual) / 8), decode,
                    contexts=len(bells), phased_contexts=phased)  # fmt: skip
        print(line(found), flush=True)
        return found

    for name, family in TAILS.items():
        with patched([(module, "TAILS", family) for module in (least_squares, tables)]):
            yield out("six tails", name, refitted())
    for degrees in (7, 15):
        with patched([*_one_family(degrees), *_counts(_without_phase)]):
            bits = refitted()
        yield out("six tails and phases", f"one family, n = {degrees}, one table for all phases", bits)
        with patched([*_one_family(degrees), *_counts(_one_point)]):
            bits = refitted()
        yield out("six tails and three points", f"one family, n = {degrees}, one point", bits)
    yield out("tables from tails", "stored tables", sum(stored_bits(b, *r) for b, r in zip(bells, runs, strict=True)))
    with patched(_counts(_one_point)):
        bits = refitted()
    yield out("three points", "one point", bits)
    with patched(_counts(_without_phase)):
        again = iter([replace(fit(*run), phased=False) for run in runs])
    with patched([(fit_predictor, "fit_bell", lambda *_: next(again))]):
        others = kept.frames(cut)
    decode = with_s, decoded(others, cut)
    yield out("phases", "one table for all phases", usual + 8 * (sum(map(len, others)) - size), decode)


# ---- lossy -------------------------------------------------------------------------------------------------


class Again(choice.Chooser):
    """Codes coefficients that are chosen already."""

    def _choose(self, size: Array, place: Array, flag_counts: Array, size_counts: Array) -> Array:
        return np.rint(size).astype(np.int32)


_NO_GROUPS: list[Patch] = [(module, "QUIET", 0) for module in (adaptive, choice, transform)]


class Plain(Again):
    """The same with all signs in their field; states begin at 2^16."""

    fewer = 1

    def streams(self, coefficients: Any) -> bytes:
        """Return what follows the header."""
        joined = choice._joined
        flat = [values.reshape(-1) for values in coefficients.values()]
        negative = np.concatenate([values[values != 0] < 0 for values in flat]).astype(np.uint8)
        symbols = sum(len(c) for c in self._counts)
        count = lanes.lane_count(symbols // self.fewer, self.coefficients, self.bits / 8 / self.fewer)
        signs = np.packbits(negative, bitorder="little").tobytes()
        numbers, widths = (np.concatenate(a) if a else np.zeros(0, np.int64) for a in (self._numbers, self._widths))
        packed = integers.pack_bits(numbers, widths)
        words = lanes.write_stream(*(joined(a) for a in (self._counts, self._starts, self._precisions)),
                                   np.zeros(16 * count, np.uint8))  # fmt: skip
        head = count.to_bytes(2, "little") + len(packed).to_bytes(4, "little") + packed
        return head + len(signs).to_bytes(4, "little") + signs + words


class Slower(Plain):
    """The same with half the lanes."""

    fewer = 2


class Golomb(Again):
    """The same with escapes in Exp-Golomb codes of order 2: all prefixes of a pass, then all the rest of them."""

    def _record_sizes(self, mine: Array, magnitude: Array, counts: Array) -> None:
        width = adaptive.low_bits(mine)
        short = np.minimum((magnitude - 1) >> width, transform.ESCAPE)
        begins = np.cumsum(counts, 1) - counts
        self._keep(counts[mine, short], begins[mine, short], adaptive.SIZE_BITS)
        self._model.count_sizes(mine, short)
        self.bits += len(mine)  # signs
        rest = ((magnitude - 1) >> width)[short == transform.ESCAPE] - transform.ESCAPE
        if rest.size:
            more = bit_length((rest >> 2) + 1) - 1
            self._field(1 << more, more + 1)
            self._field((rest + 4) & ((4 << more) - 1), more + 2)
        if width.any():
            self._field((magnitude - 1) & ((1 << width) - 1), width)


class Simple(Slower, Golomb):
    """All of these together; groups are left out by a patch."""


def _golomb_escaped(source: Any, sizes: Array) -> Array:
    """Return what is added to each size, read as `Golomb` writes it."""
    out, over = np.zeros(len(sizes), np.int64), (sizes == transform.ESCAPE).nonzero()[0]
    if over.size:
        bits = source._bits
        first, skip = divmod(bits._position, 8)
        some = (bits._from[first : first + 2 + over.size * 26 // 8] & 255).astype(np.uint8)
        ends = np.unpackbits(some, bitorder="little")[skip:].nonzero()[0][: over.size]
        more = np.diff(ends, prepend=-1) - 1
        bits._position += int(ends[-1]) + 1
        out[over] = bits.take((more + 2).astype(np.int32)).astype(np.int64) + (4 << more) - 4
    return out


def _no_last_bits(stream: Any) -> npt.NDArray[np.uint8]:
    """Check the end of the stream; no sign is in it."""
    stream.finish()
    return np.zeros(0, np.uint8)


def transformed(volume: Volume, asked: float, inside: masks.Mask | None = None) -> bytes | None:
    """Return the frame of a volume in the mode transform, the target as the converter would give it."""
    image, dims = volume.image, archive_layout.image_dims(volume.image.ndim)
    whole = Grid(image.shape, image.shape)
    (target,) = Promise(psnr=asked).chunk_targets(whole, volume.ranges, dims, lambda _: (image, inside))
    if inside is not None:
        image = np.where(inside, image, image.dtype.type(0))
    return candidates.transformed(image, target, "balanced", inside)


def measure_lossy(volume: Volume, asked: float) -> Iterator[Row]:
    """Yield the rows of the transform at one quality."""
    usual = transformed(volume, asked)
    if usual is None:
        return
    parsed = frame.unpack(usual)
    seen: dict[str, Any] = {"escapes": []}
    synthesis, escaped = transform.synthesis, transform._Source._escaped

    def keep(header: Any, lengths: Any, bands: Any, coefficients: Any, *more: Any) -> Array:
        seen.update(header=header, bands=bands, coefficients=coefficients)
        return synthesis(header, lengths, bands, coefficients, *more)

    def keep_escapes(source: Any, sizes: Array) -> Array:
        out = escaped(source, sizes)
        seen["escapes"].append(out[sizes == transform.ESCAPE])
        return out

    with patched([(transform, "synthesis", keep), (transform._Source, "_escaped", keep_escapes)]):
        values = chunks_.decode_chunk(usual)
    header, bands, coefficients = seen["header"], seen["bands"], seen["coefficients"]

    def coded(kind: type[Again]) -> bytes:
        steps = {place: values_.astype(np.float32) for place, values_ in coefficients.items()}
        chooser = kind(bands, steps)
        walk(bands, header.active, header.levels, header.weights, chooser)
        return chooser.streams(coefficients)

    payload, tail = bytes(parsed.payload), coded(Again)
    if not payload.endswith(tail):
        raise SystemExit("coefficients coded again do not give the same bytes")
    front = payload[: -len(tail)]

    def sealed(rest: bytes) -> bytes:
        return chunks_.seal(frame.TRANSFORM, volume.image, front + rest, values)

    def timed(data: bytes) -> float:
        best, found = seconds(lambda: chunks_.decode_chunk(data))
        if not np.array_equal(found, values):
            raise SystemExit("a variant does not give back what it was given")
        return best

    with_s = timed(usual)
    nonzero = sum(int(np.count_nonzero(v)) for v in coefficients.values())
    count = sum(v.size for v in coefficients.values())
    more = {"coefficients": count, "nonzero": nonzero}
    with patched(_NO_GROUPS):
        single = sealed(coded(Again))
        without_s = timed(single)
    yield row("lossy", "quiet groups", "a flag for each coefficient", volume, asked, (len(usual), len(single)),
              (with_s, without_s), **more)  # fmt: skip
    for kind, without in ((Plain, "all signs in their field"), (Slower, "all signs in their field, half the lanes")):
        with patched([(transform.Stream, "last_bits", _no_last_bits)]):
            plain = sealed(coded(kind))
            without_s = timed(plain)
        yield row("lossy", "signs in final states", without, volume, asked, (len(usual), len(plain)),
                  (with_s, without_s), **more)  # fmt: skip
    read = [(transform._Source, "_escaped", _golomb_escaped), (transform.Stream, "last_bits", _no_last_bits)]
    with patched([*_NO_GROUPS, *read]):
        simple = sealed(coded(Simple))
        without_s = timed(simple)
    yield row("lossy", "quiet groups, signs in final states, three-stage escapes", "none of them, half the lanes",
              volume, asked, (len(usual), len(simple)), (with_s, without_s), **more)  # fmt: skip
    rest = np.concatenate([np.zeros(0, np.int64), *seen["escapes"]])
    now = int((5 + bit_length(rest)).sum())
    size: float
    decode: tuple[float | None, float | None]
    for order in (0, 2, 4):
        golomb = int((2 * bit_length((rest >> order) + 1) - 1 + order).sum())
        size, decode = len(usual) + (golomb - now) / 8, (None, None)
        if order == ORDER_CODED:
            with patched([(transform._Source, "_escaped", _golomb_escaped)]):
                made = sealed(coded(Golomb))
                size, decode = len(made), (with_s, timed(made))
        yield row("lossy", "three-stage escapes", f"Exp-Golomb of order {order}", volume, asked, (len(usual), size),
                  decode, escapes=len(rest), **more)  # fmt: skip


def bit_length(numbers: Array) -> Array:
    """Return how many binary digits numbers have."""
    return np.where(numbers > 0, np.floor(np.log2(np.maximum(numbers, 1))).astype(np.int64) + 1, 0)


# ---- masks -------------------------------------------------------------------------------------------------


def head_mask(volume: Volume) -> masks.Mask:
    """Return a mask of what is not air, with the axes of the image."""
    mean = volume.stacked.mean(0)
    levels, edges = np.histogram(mean, 256)
    below, middle = np.cumsum(levels), (edges[1:] + edges[:-1]) / 2
    total, sums = below[-1], np.cumsum(levels * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below - total * sums) ** 2 / (below * (total - below))
    found = mean > edges[1 + int(np.nanargmax(between[:-1]))] / 2  # half of it: dark tissue is tissue
    for grow in (True, True, False, False):
        found = _moved(found, grow)
    found = np.stack([_filled(plane) for plane in found])
    return found.reshape((1,) * volume.leading + found.shape)


def _moved(mask: Array, grow: bool) -> Array:
    """Return a mask grown or shrunk by one voxel along each axis."""
    out = mask.copy()
    for axis in range(mask.ndim):
        for shift in (1, -1):
            beside = np.roll(mask, shift, axis)
            edge: list[Any] = [slice(None)] * mask.ndim
            edge[axis] = 0 if shift == 1 else -1
            beside[tuple(edge)] = mask[tuple(edge)]
            out = out | beside if grow else out & beside
    return out


def _filled(plane: Array) -> Array:
    """Return a plane whose holes are filled: what is not reached from the border is inside."""
    free = np.pad(~plane, 1, constant_values=True)
    reached = np.zeros_like(free)
    reached[0, 0] = True
    while True:
        grown = _moved(reached, True) & free
        if (grown == reached).all():
            return ~reached[1:-1, 1:-1]
        reached = grown


RASTER = (
    *((0, 0, dx) for dx in (-2, -1)), *((0, -1, dx) for dx in (-2, -1, 0, 1, 2)), *((0, -2, dx) for dx in (-1, 0, 1)),
    (-1, 0, 0), (-1, 0, -1), (-1, 0, 1), (-1, -1, 0), (-1, 1, 0),
)  # fmt: skip
"""Neighbours of a bit that make its context: ten of its slice as in JBIG, five of the slice before."""


def raster_contexts(bits: Array, template: Sequence[tuple[int, int, int]]) -> Array:
    """Return the context of every bit of (z, y, x); zeros are beyond the edges."""
    around = np.pad(bits.astype(np.int64), 2)
    z, y, x = bits.shape
    out = np.zeros(bits.shape, np.int64)
    for dz, dy, dx in template:
        out = 2 * out + around[2 + dz : 2 + dz + z, 2 + dy : 2 + dy + y, 2 + dx : 2 + dx + x]
    return out


def adaptive_bits(contexts: Array, bits: Array, start: float = 0.4) -> float:
    """Return the bits of an adaptive binary coder whose counts begin at `start`: the order in a context is the same."""
    seen = np.bincount(contexts.reshape(-1))
    ones = np.bincount(contexts.reshape(-1), bits.reshape(-1), len(seen))
    log = np.vectorize(math.lgamma, otypes=[float])
    some = seen > 0
    n, a = seen[some].astype(float), ones[some]
    nats = log(a + start) + log(n - a + start) - log(n + 2 * start) - 2 * math.lgamma(start) + math.lgamma(2 * start)
    return float(-nats.sum() / math.log(2))


def raster_seconds(bits: Array) -> float:
    """Return what contexts alone take a decoder in Python, from the rows of one slice; the arithmetic comes on top."""
    z, y, x = bits.shape
    around = np.pad(bits, 2)[:, :, :].tolist()
    at, work = 2 + z // 2, [(dz, dy, dx) for dz, dy, dx in RASTER]
    counts, total, rows = [1] * (1 << len(RASTER)), 0, min(y, 32)
    begin = time.process_time()
    for j in range(2, 2 + rows):
        for i in range(2, 2 + x):
            context = 0
            for dz, dy, dx in work:
                context = 2 * context + around[at + dz][j + dy][i + dx]
            counts[context] += around[at][j][i]
            total += counts[context]
    return (time.process_time() - begin) / (rows * x) * bits.size


def _every_bit(bits: Array, context: Array) -> Iterator[tuple[Array, Array]]:
    yield context, bits


def _read_every_bit(reader: frame.Reader, shape: tuple[int, ...], field: str) -> Array:
    """Decode a bitmap whose bits are all coded, those without a doubt, too."""
    folded = masks._folded(shape)
    width = reader.number("H", f"{field}.lanes")
    counts = reader.array("<u2", masks._TABLES, f"{field}.counts").astype(np.int64)
    states, bits = masks.rans.Lanes(reader, width, field), np.zeros(folded, np.uint8)
    for target, context in masks._passes(bits):
        target[...] = masks._take(states, counts, context).reshape(target.shape)
    states.finish()
    return bits.view(np.bool_).reshape(shape)


def measure_masks(volume: Volume) -> Iterator[Row]:
    """Yield the rows of the code of masks."""
    inside = head_mask(volume)
    bits = inside.reshape(inside.shape[-3:])
    asked = MASKED_PSNR[volume.name]
    made = transformed(volume, asked, masks.narrow(inside, volume.image.shape))
    if inside.all() or made is None:
        print(f"{volume.name}: no mask, or no frame with it", flush=True)
        return

    def read(data: bytes, how: Callable[..., Array]) -> float:
        best, found = seconds(lambda: how(frame.Reader(memoryview(data)), bits.shape, "mask"))
        if not np.array_equal(found, bits):
            raise SystemExit("a mask does not come back")
        return best

    usual = masks.write(bits)
    with_s, size = read(usual, masks.read), len(made)
    more = {"mask_bytes": len(usual), "inside": round(float(bits.mean()), 4)}

    def out(feature: str, without: str, other: float, without_s: float | None = None) -> Row:
        return row("masks", feature, without, volume, asked, (size, size + other - len(usual)), (with_s, without_s),
                   **more, mask_bytes_without=round(other))  # fmt: skip

    with patched([(masks, "_symbols", _every_bit)]):
        single = masks.write(bits)
    yield out("groups of sure bits", "every bit coded", len(single), read(single, _read_every_bit))
    raster = 2 + adaptive_bits(raster_contexts(bits, RASTER), bits) / 8
    yield out("parity passes", "raster, 15 neighbours, adaptive", raster, raster_seconds(bits))
    small = 2 + adaptive_bits(raster_contexts(bits, RASTER[:10]), bits) / 8
    yield out("parity passes", "raster, 10 neighbours of the slice, adaptive", small)
    packed = zlib.compress(np.packbits(bits).tobytes(), 9)
    yield out("coded mask", "zlib of packed bits", len(packed),
              seconds(lambda: np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8)))[0])  # fmt: skip


# ---- results -----------------------------------------------------------------------------------------------


def line(found: Row) -> str:
    """Return a row for people."""
    asked = "" if found["asked"] is None else f"{found['asked']:g} dB"
    times = [found["decode_with_s"], found["decode_without_s"]]
    timing = "" if None in times else f"  {times[0]:.3f} s -> {times[1]:.3f} s"
    name = f"{found['feature']} / {found['without']}"
    return (f"{time.strftime('%H:%M:%S')} {found['scan']} {asked:6} {name:70} {found['bytes_with']:>9,} -> "
            f"{found['bytes_without']:>9,} {found['percent']:+8.3f} %{timing}")  # fmt: skip


def summary(rows: Sequence[Row]) -> str:
    """Return mean, least and most of each feature over the scans (and qualities) on which it is used."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for one in rows:
        groups.setdefault((one["part"], one["feature"], one["without"]), []).append(one)
    out = [f"{'feature / without it':78} {'n':>3} {'mean %':>8} {'least':>8} {'most':>8}  time without / with"]
    for (part, feature, without), mine in groups.items():
        worth = [one["percent"] for one in mine]
        ratios = [one["decode_without_s"] / one["decode_with_s"] for one in mine if one["decode_without_s"]]
        speed = f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}" if ratios else ""
        name = f"{part}: {feature} / {without}"
        out.append(f"{name:78} {len(mine):3} {np.mean(worth):8.3f} {min(worth):8.3f} {max(worth):8.3f}  {speed}")
    return "\n".join(out)


def modes() -> dict[str, dict[str, int]]:
    """Return the modes of all frames that the other benchmarks have made: zlib is in planes and exceptions alone."""
    lossless: dict[str, int] = {}
    for one in json.loads((RESULTS / "lossless.json").read_text())["rows"]:
        for name, count in one["modes"].items():
            lossless[name] = lossless.get(name, 0) + count
    lossy: dict[str, int] = {}
    for one in json.loads((RESULTS / "rate.json").read_text())["rows"]:
        lossy[one["mode"]] = lossy.get(one["mode"], 0) + 1
    return {"lossless": lossless, "lossy": lossy}


def write(rows: Sequence[Row], environment: dict[str, Any]) -> None:
    """Write the result files."""
    head = {"environment": environment, "device": "cpu", "threads": 1, "seed": SEED, "modes_of_frames": modes()}
    text = json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]\n}\n"
    (RESULTS / "features.json").write_text(text)
    names = [*KEY, "bytes_with", "bytes_without", "percent", "decode_with_s", "decode_without_s"]
    with (RESULTS / "features.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(names)
        out.writerows([one[name] for name in names] for one in rows)


def key(found: Row) -> tuple[Any, ...]:
    """Return what makes a row replace another."""
    return tuple(found[name] for name in KEY)


def measure(name: str, parts: Sequence[str], only: str) -> Iterator[Row]:
    """Yield the rows of a scan."""
    volume = load(name, None, 0)
    if "lossless" in parts or "tables" in parts:
        yield from measure_lossless(volume, [part for part in parts if part != "small"], only)
    if "small" in parts and name in SMALL:
        middle = volume.image.shape[0] // 2
        piece = volume.image[0] if volume.leading else volume.image[middle : middle + 1]
        yield from measure_lossless(replace(volume, image=np.ascontiguousarray(piece)), ["small"], only)
    for asked in PSNR[name] if "lossy" in parts else ():
        for found in measure_lossy(volume, asked):
            print(line(found), flush=True)
            yield found
    if "masks" in parts:
        for found in measure_masks(volume):
            print(line(found), flush=True)
            yield found


def main(words: list[str] | None = None) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scans", default=",".join(ORDER), help="s01,s02,...; all by default")
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--only", default="", help="of lossless and small: features with this in their name")
    parser.add_argument("--summary", action="store_true", help="no measurements")
    options = parser.parse_args(words)
    path, environment = RESULTS / "features.json", describe("nibabel")
    known = {key(r): r for r in json.loads(path.read_text())["rows"]} if path.exists() else {}
    if not options.summary:
        print(f"device cpu ({environment['processor']}), {environment['versions']}, seed {SEED}", flush=True)
        for name in options.scans.split(","):
            for found in measure(name, options.parts.split(","), options.only):
                known[key(found)] = found
            order = sorted(known.values(), key=lambda r: (PARTS.index(r["part"]), ORDER.index(r["scan"])))
            write(order, environment)
    rows = sorted(known.values(), key=lambda r: PARTS.index(r["part"]))
    print(summary(rows))


if __name__ == "__main__":
    main()
