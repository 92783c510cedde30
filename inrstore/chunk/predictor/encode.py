"""Values -> predictor payloads: fits the weights of every stage by least squares (specification section 12).

All that a reader knows at a value are true values, for the coding is lossless; so predictions, contexts and
symbols are made for whole arrays, without the reader's order.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.byteplanes.levels import ordered
from inrstore.chunk.entropy.integers import Ints, pack_bits
from inrstore.chunk.entropy.rans import PRECISION, TOTAL
from inrstore.chunk.linear import product, products, solved
from inrstore.chunk.mask import Mask
from inrstore.chunk.predictor import layout as layouts
from inrstore.chunk.predictor import regression
from inrstore.chunk.predictor.decode import holds, smallest
from inrstore.chunk.predictor.encode_regions import choose_region, with_regions
from inrstore.chunk.predictor.encode_stage import SAMPLE, SETS, Coded, StageFit
from inrstore.chunk.predictor.lanes import lane_count, write_stream
from inrstore.chunk.predictor.layout import Layout
from inrstore.chunk.predictor.least_squares import combined, explaining_order, fit_bell, solve
from inrstore.chunk.predictor.regression import CLASSES, Neighbourhood
from inrstore.chunk.predictor.stages import StageView, base_of
from inrstore.chunk.predictor.tables import CONTEXTS, Tables, write_bells
from inrstore.errors import CorruptChunkError

SMALLEST = 2000
"""Values under which the weights cost more than they save."""
_LEAST_PER_STAGE = 500
_BACKGROUND = 0.15  # share of zeros from which flags save more than the time they take to read
_LEAST_BYTES_FOR_LANES = 24_000
_LANES, _LEAST_FOR_LANES = 6, 30_000  # 48 more lanes double the speed of 60,000 values, and take 0.35 % of their bytes
_LEAST_FOR_REGIONS = 1 << 17
_LEAST_PER_STEP = 400  # values of a step without parts, from which no part is worth its borders
_WIDE_GAIN = 0.008  # bits per value that the wide neighbourhood has to save


def encode(
    core: npt.NDArray[Any], inside: Mask | None = None, *, sets: int = SETS, regions: bool = True
) -> bytes | None:
    """Return the payload after the envelope, or None for what the mode does not hold.

    Parameters
    ----------
    core : ndarray
        Little-endian, at least one value.
    inside : ndarray of bool, optional
        Values elsewhere are free; broadcasts to the core.
    sets : int
        Most sets of weights that are the same everywhere.
    regions : bool
        Whether weights may differ by place; what pays is taken.
    """
    if core.size < SMALLEST or not holds(core.dtype):
        return None
    mapped = _mapped(core, inside)
    if mapped is None:
        return None
    base, step, values = mapped
    layout = _choose(values, base, step)
    if layout is None:
        return None
    whole = _folded(values, layout.swap)[layout.order]
    layout = with_places(layout, whole) if regions else layout
    return _Encoder(layout, layouts.cut(whole, layout), sets).run()


def _mapped(core: npt.NDArray[Any], inside: Mask | None) -> tuple[int, int, npt.NDArray[np.int32]] | None:
    """Return base, step and v; None if the range is too large."""
    pattern = ordered(core)
    known = pattern if inside is None else pattern[np.broadcast_to(inside, pattern.shape)]
    least, most = int(known.min()), int(known.max())
    gaps = known.reshape(-1) - pattern.dtype.type(least)
    step = int(np.gcd.reduce(gaps[:1000])) if gaps.size else 1
    step = step if step == 1 else int(np.gcd.reduce(gaps))
    step = max(step, 1)
    if (most - least) // step > limits.MAX_PREDICTOR_RANGE:
        return None
    index = gaps // pattern.dtype.type(step) if step > 1 else gaps
    seen = np.bincount(index[:: max(1, index.size // 100_000)].astype(np.int64))
    place = int(seen.argmax())  # the background, if there is one
    if seen[place] < 0.005 * seen.sum():
        place = 0
    base = least + step * place
    if inside is not None:
        pattern = np.where(inside, pattern, pattern.dtype.type(base))
    values = ((pattern.astype(np.int64) - base) // step).astype(np.int32)
    return base, step, values


def _folded(values: npt.NDArray[Any], swap: bool) -> npt.NDArray[Any]:
    folded = values.reshape(layouts.fold(values.shape, False))
    return folded.swapaxes(2, 3) if swap else folded


def _choose(values: npt.NDArray[np.int32], base: int, step: int) -> Layout | None:
    """Return the layout of values of any number of axes, or None if no reader accepts one."""
    t, z, y, x = layouts.fold(values.shape, False)
    swap = y > x
    lengths = layouts.fold(values.shape, swap)
    if t > limits.MAX_PREDICTOR_MEASUREMENTS:
        return None
    top = 1 if z < 2 or (z < 12 and t > 8) else 2 if z < 16 or t > 1 else 4
    plain = Layout(lengths, swap, False, False, base, step, int(values.min(initial=0)), int(values.max(initial=0)),
                   top, 1, 1, np.arange(t))  # fmt: skip
    layout = _parted(plain)
    stages = len(layouts.groups(t)) * len(layouts.stages(z, top))
    if values.size < stages * _LEAST_PER_STAGE:
        return None
    try:
        layout.check()
    except CorruptChunkError:
        return None
    folded = _folded(values, swap)
    layout = replace(layout, order=explaining_order(folded), zeros=_has_background(folded))
    return replace(layout, wide=_pays_wide(layout, folded))


def _parted(layout: Layout) -> Layout:
    """Cut slices into parts where a step would have too few values; each border costs a little."""
    _, _, rows, columns = layout.lengths
    while True:
        h, w = layout.part_shape
        per_step = layout.values / layout.steps()
        too_large = layout.padded > limits.MAX_PREDICTOR_PART
        if not too_large and (per_step >= 700 or (2 * h <= w / 2 and per_step >= 100) or (w <= 64 and h <= 32)):
            return layout
        if 2 * h >= w / 2 and h > 1:
            layout = replace(layout, row_parts=_next_parts(rows, layout.row_parts))
        else:
            layout = replace(layout, column_parts=_next_parts(columns, layout.column_parts))


def _next_parts(length: int, parts: int) -> int:
    """Return the number of parts, none of them empty, of about half the length."""
    size = -(-length // (2 * parts))
    return -(-length // size)


def _has_background(folded: npt.NDArray[Any]) -> bool:
    """Return whether zeros lie together, and are worth flags."""
    if len(folded) > 1:
        return False
    zero = folded == 0
    inner = zero[:, :, 1:, 1:]
    together = inner & zero[:, :, :-1, 1:] & zero[:, :, 1:, :-1]
    return bool(inner.size and inner.mean() > _BACKGROUND and together.sum() > 0.75 * inner.sum())


def _pays_wide(layout: Layout, folded: npt.NDArray[Any]) -> bool:
    """Compare both neighbourhoods on values of the first measurement that are not background."""
    tiles = layouts.cut(folded[layout.order[:1]], replace(layout, lengths=(1, *layout.lengths[1:])))
    one = replace(layout, lengths=(1, *layout.lengths[1:]))
    slices, distance = layouts.stages(layout.lengths[1], layout.top)[-1]
    if layout.part_shape[0] * layout.part_shape[1] * layout.parts * len(slices) < 30_000:
        return False
    view = StageView(one, range(1), slices, distance, tiles, np.zeros(tiles.shape, np.uint16), None, None)
    left = []
    for wide in (False, True):
        fit = StageFit(replace(one, wide=wide), view, Neighbourhood(wide, distance > 0, False))
        rows, wanted, _ = fit.sample(fit.picked(SAMPLE)[0])
        half, weights = len(wanted) // 2, 1 / (np.abs(rows).mean(0) + 1)
        found = solve(rows[:, :half], wanted[:half], weights[:half])
        left.append(float(np.log2(np.abs(wanted[half:] - combined(found, rows[:, half:])) + 0.5).mean()))
    return left[0] - left[1] > _WIDE_GAIN


def with_lanes(layout: Layout, size: int) -> Layout:
    """Return the layout with more lanes than the common number, where reading would be slow and they cost little.

    Parameters
    ----------
    layout : Layout
    size : int
        Of the payload in bytes, about.
    """
    few = layout.values >= _LEAST_FOR_LANES and lane_count(layout.values, None) < 1 << _LANES
    return replace(layout, lanes=_LANES) if few and size >= _LEAST_BYTES_FOR_LANES else layout


def with_places(layout: Layout, whole: npt.NDArray[Any]) -> Layout:
    """Return the layout with regions of the size that suits the values (1, z, y, x), or as it is."""
    plain = replace(layout, row_parts=1, column_parts=1, region=layout.lengths[2:])
    if layout.lengths[0] > 1 or layout.values < _LEAST_FOR_REGIONS:
        return layout
    try:
        plain.check()
    except CorruptChunkError:
        return layout
    if plain.values < _LEAST_PER_STEP * plain.steps():
        return layout
    tiles = layouts.cut(whole, plain)
    slices, distance = layouts.stages(plain.lengths[1], plain.top)[0]
    view = StageView(plain, range(1), slices, distance, tiles, np.zeros(tiles.shape, np.uint16), None, None)
    region = choose_region(StageFit(plain, view, Neighbourhood(plain.wide, False, False)), plain.part_shape)
    if region is not None:
        return replace(plain, region=region)
    return plain if layout.parts > 1 else layout


class _Encoder:
    """Goes through groups and stages as a reader does, and fits each.

    Parameters
    ----------
    layout : Layout
    tiles : ndarray of int32, shape (T, z, part, row, column)
        Values in the order of measurements.
    sets : int
        Most sets of weights that are the same everywhere.
    """

    def __init__(self, layout: Layout, tiles: npt.NDArray[Any], sets: int) -> None:
        self._layout, self._sets = layout, sets
        self._tiles = tiles.astype(smallest(layout.low, layout.high))
        self._coded = Coded()

    def run(self) -> bytes:
        """Return the payload."""
        layout, tiles = self._layout, self._tiles
        out = []
        total = np.zeros(tiles.shape[1:], np.int32)
        for group in layouts.groups(len(tiles)):
            base = mean = None
            if group.start:
                shift, weights = _fit_base(tiles, group)
                out.append(regression.write_base(shift, weights))
                base, mean = base_of(tiles, group, (shift, weights), layout), total // group.start
            errors = np.zeros((len(group), *tiles.shape[1:]), np.uint16)
            for slices, distance in layouts.stages(layout.lengths[1], layout.top):
                view = StageView(layout, group, slices, distance, tiles, errors, base, mean)
                hood = Neighbourhood(layout.wide, distance > 0, group.start > 0)
                fit = StageFit(layout, view, hood)
                stage = fit.fitted(self._sets)
                if layout.grid is not None:
                    stage = with_regions(fit, stage, layout.grid)
                out.append(fit.code(self._coded, stage).write())
            total += errors.sum(0, dtype=np.int32)
        return self._with_streams(b"".join(out))

    def _with_streams(self, stages: bytes) -> bytes:
        """Return the payload of the fitted stages."""
        coded = self._coded
        errors, places, known = (np.concatenate(a) for a in (coded.errors, coded.places, coded.values))
        context = (places >> 2).astype(np.uint8)
        order = np.argsort(context, kind="stable")
        bounds = np.cumsum([0, *np.bincount(context, minlength=CONTEXTS)])
        runs = [order[a:b] for a, b in itertools.pairwise(bounds)]
        bells = [fit_bell(errors[run], places[run] & 3) if run.size else None for run in runs]
        tables = Tables(bells)
        table, shift = tables.index[places], tables.shifts[places >> 2].astype(np.int64)
        moved = errors + ((1 << shift) >> 1)
        symbol, low = moved >> shift, moved & ((1 << shift) - 1)
        peak = np.array(tables.peaks, np.int64)[table]
        escaped = np.abs(symbol) > peak
        entry = np.where(escaped, 2 * peak + 1, symbol + peak)
        firsts = np.cumsum([0, *(len(c) for c in tables.counts)])
        counts = np.concatenate(tables.counts) if tables.counts else np.zeros(0, np.int64)
        starts = [np.cumsum(c) - c for c in tables.counts]
        start = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        at = firsts[table] + entry
        escapes = (known[escaped] - self._layout.low).astype("<u2")
        some = (shift > 0) & ~escaped
        packed = pack_bits(low[some], shift[some])
        middle = struct.pack("<I", len(escapes)) + escapes.tobytes() + struct.pack("<I", len(packed)) + packed
        bits = PRECISION * len(at) - float(np.log2(counts)[at].sum())
        layout = with_lanes(self._layout, len(stages) + len(middle) + int(bits / 8))
        lanes = lane_count(layout.values, layout.lanes)
        flag_counts, flag_stream = self._flag_stream(lanes) if layout.zeros else (b"", b"")
        stream = write_stream(counts[at], start[at], lanes)
        return b"".join([layout.write(), stages, write_bells(bells), flag_counts, middle, flag_stream, stream])

    def _flag_stream(self, lanes: int) -> tuple[bytes, bytes]:
        """Return the counts of the classes, and the stream behind its length."""
        flags, classes = np.concatenate(self._coded.flags), np.concatenate(self._coded.classes)
        ones = np.bincount(classes, flags, CLASSES)
        seen = np.bincount(classes, minlength=CLASSES)
        share = np.clip(np.rint((ones + 0.4) / (seen + 0.8) * TOTAL), 1, TOTAL - 1).astype(np.int64)
        mine = share[classes]
        stream = write_stream(np.where(flags, mine, TOTAL - mine), np.where(flags, 0, mine), lanes)
        return share.astype("<u2").tobytes(), struct.pack("<I", len(stream)) + stream


def _fit_base(tiles: npt.NDArray[Any], group: range) -> tuple[int, Ints]:
    """Return shift and weights of the base of a group."""
    k = min(group.start, regression.MOST_EARLIER)
    flat = tiles.reshape(len(tiles), -1)
    rng = np.random.default_rng(group.start)
    wanted = max(8000, min(SAMPLE, 400 * k))
    pick = rng.integers(0, flat.shape[1], wanted) if flat.shape[1] > wanted else np.arange(flat.shape[1])
    rows = np.concatenate([flat[:k, pick].astype(np.float64), np.ones((1, len(pick)))])
    targets = flat[group.start : group.stop, pick].astype(np.float64)
    weights = 1 / (np.abs(rows[:-1]).mean(0) + 20)
    weighted = rows * weights
    gram = products(weighted, rows)
    diagonal = np.diag_indices(k + 1)
    gram[diagonal] *= 1 + 3e-4
    gram[diagonal] += 1e-6
    found = solved(gram, products(weighted, targets)).T
    spread = np.median(np.abs(targets - product(found, rows))) + 0.3
    noise = np.sqrt(k) * np.sqrt((rows[:-1] ** 2).mean() + 1e-9) / 3.5  # of rounded weights, with shift 0
    shift = int(np.clip(np.ceil(np.log2(noise / (0.12 * spread))), 6, 14))
    whole = np.rint(found * 2.0**shift).astype(np.int64)
    whole[:, -1] += 1 << (shift - 1)
    return shift, whole
