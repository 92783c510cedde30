"""Values -> predictor payloads: fits the weights of every stage by least squares (specification section 12).

All that a reader knows at a value are true values, for the coding is lossless; so predictions, contexts and
symbols are made for whole arrays, without the reader's order.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.dtypes import is_short, ordered
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.entropy.rans import TOTAL
from inrstore.chunk.entropy.residual_encode import coded, lanes_of, written
from inrstore.chunk.least_squares import explaining_order
from inrstore.chunk.linear import product, products, solved
from inrstore.chunk.mask import Mask
from inrstore.chunk.predictor import layout as layouts
from inrstore.chunk.predictor import regression
from inrstore.chunk.predictor.decode import smallest
from inrstore.chunk.predictor.encode_regions import choose_region, with_regions
from inrstore.chunk.predictor.encode_stage import SAMPLE, SETS, Coded, StageFit
from inrstore.chunk.predictor.layout import Layout
from inrstore.chunk.predictor.regression import CLASSES, Neighbourhood
from inrstore.chunk.predictor.stages import StageView, base_of
from inrstore.chunk.quality import Target
from inrstore.chunk.task import Task
from inrstore.errors import CorruptChunkError

SMALLEST = 2000
"""Values under which the weights cost more than they save."""
_LEAST_PER_STAGE = 500
_BACKGROUND = 0.15  # share of zeros from which flags save more than the time they take to read
_LEAST_FOR_REGIONS = 1 << 17
_LEAST_PER_STEP = 400  # values of a step without parts, from which no part is worth its borders


def bid(task: Task) -> bytes | None:
    """Return the payload of a lossless chunk, or of integers rounded to as few values as a largest error allows."""
    if task.target.lossless:
        core, around = task.cropped
        payload = encode(core, around.mask)
        return None if payload is None else task.sealed(payload)
    coarse = _rounded(task)
    return None if coarse is None else bid(replace(task, chunk=coarse, target=Target(lossless=True)))


def _rounded(task: Task) -> npt.NDArray[Any] | None:
    """Return integers rounded to every (2 e + 1)-th value around the commonest one, or None."""
    target, values, mask = task.target, task.values, task.mask
    if target.max_error is None or values.dtype.kind not in "iu" or values.dtype.itemsize > 4:
        return None
    step = 2 * math.floor(min(target.max_error, 2.0**31)) + 1
    if step == 1:
        return None
    wide = values.astype(np.int64)
    inside = wide if mask is None else wide[np.broadcast_to(mask, wide.shape)]
    low, high = int(inside.min()), int(inside.max())
    middle = low + int(np.bincount(np.minimum(inside.reshape(-1) - low, 1 << 16)).argmax())
    least, most = (middle + (v - middle + step // 2) // step * step for v in (low, high))
    info = np.iinfo(values.dtype)
    if least < info.min or most > info.max:
        return None
    coarse = middle + (wide - middle + step // 2) // step * step
    if mask is not None:
        coarse = np.where(mask, coarse, 0)
    return np.asarray(coarse.astype(values.dtype), order="C")


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
    if core.size < SMALLEST or not is_short(core.dtype):
        return None
    mapped = _mapped(core, inside)
    if mapped is None:
        return None
    base, step, values = mapped
    layout = _choose(values, base, step)
    if layout is None:
        return None
    whole = _folded(values, layout.swap)[layout.order]
    del mapped, values  # each copy is as large as all that is kept later on
    layout = with_places(layout, whole) if regions else layout
    tiles = layouts.cut(whole, layout)
    del whole
    return _Encoder(layout, tiles, sets).run()


def _mapped(core: npt.NDArray[Any], inside: Mask | None) -> tuple[int, int, npt.NDArray[Any]] | None:
    """Return base, step and v, of the smallest type; None if the range is too large."""
    pattern = ordered(core)
    where = None if inside is None else np.broadcast_to(inside, pattern.shape)
    gaps = pattern.reshape(-1) if where is None else pattern[where]
    least, most = int(gaps.min()), int(gaps.max())
    gaps -= pattern.dtype.type(least)
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
    kind = smallest(-place, (most - least) // step - place)
    if where is None:
        values = (index.astype(np.int32) - np.int32(place)).astype(kind).reshape(core.shape)
    else:
        values = np.zeros(core.shape, kind)
        values[where] = index.astype(np.int32) - np.int32(place)
    return least + step * place, step, values


def _folded(values: npt.NDArray[Any], swap: bool) -> npt.NDArray[Any]:
    folded = values.reshape(layouts.fold(values.shape, False))
    return folded.swapaxes(2, 3) if swap else folded


def _choose(values: npt.NDArray[Any], base: int, step: int) -> Layout | None:
    """Return the layout of values of any number of axes, or None if no reader accepts one."""
    t, z, y, x = layouts.fold(values.shape, False)
    swap = y > x
    lengths = layouts.fold(values.shape, swap)
    if t > limits.MAX_PREDICTOR_MEASUREMENTS:
        return None
    top = 1 if z < 2 or (z < 12 and t > 8) else 2 if z < 16 or t > 1 else 4
    plain = Layout(lengths, swap, False, base, step, int(values.min(initial=0)), int(values.max(initial=0)),
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
    return replace(layout, order=explaining_order(folded), zeros=_has_background(folded))


def _parted(layout: Layout) -> Layout:
    """Cut slices into parts where a step would have too few values; each border costs a little."""
    _, _, rows, columns = layout.lengths
    while True:
        h, w = layout.part_shape
        per_step = layout.values / layout.steps()
        too_large = layout.padded > limits.MAX_PREDICTOR_BLOCK
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


def with_places(layout: Layout, whole: npt.NDArray[Any]) -> Layout:
    """Return the layout with regions of the size that suits the values (1, z, y, x), or as it is."""
    plain = replace(layout, row_parts=1, column_parts=1)
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
    region = choose_region(StageFit(plain, view, Neighbourhood(False, False)), plain.part_shape)
    if region is not None:
        return replace(plain, region=region)
    return plain if layout.parts > 1 else layout


def joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return parts in one array, and let go of them."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


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
        self._tiles = tiles.astype(smallest(layout.low, layout.high), copy=False)
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
                out.append(self._stage(view, Neighbourhood(distance > 0, group.start > 0)))
            total += errors.sum(0, dtype=np.int32)
        return self._with_streams(b"".join(out))

    def _stage(self, view: StageView, neighbourhood: Neighbourhood) -> bytes:
        """Return the bytes of a fitted stage, and keep its symbols; its arrays are not kept until the next one's."""
        fit = StageFit(self._layout, view, neighbourhood)
        stage = fit.fitted(self._sets)
        if self._layout.grid is not None:
            stage = with_regions(fit, stage, self._layout.grid)
        return fit.code(self._coded, stage).write()

    def _with_streams(self, stages: bytes) -> bytes:
        """Return the payload of the fitted stages."""
        kept = self._coded
        errors, places, known = joined(kept.errors), joined(kept.places), joined(kept.values)
        found = coded(errors, places, known)
        del errors, places, known
        size = len(stages) + len(found.rest) + int(found.bits / 8)
        layout = self._layout
        lanes = lanes_of(layout.values, size)
        flag_counts, flag_stream = self._flag_stream(lanes) if layout.zeros else (b"", b"")
        parts = [
            layout.write(),
            stages,
            found.tables,
            bytes([lanes]),
            flag_counts,
            found.rest,
            flag_stream,
            found.stream(lanes),
        ]
        return b"".join(parts)

    def _flag_stream(self, lanes: int) -> tuple[bytes, bytes]:
        """Return the counts of the classes, and the stream behind its length."""
        flags, classes = np.concatenate(self._coded.flags), np.concatenate(self._coded.classes)
        ones = np.bincount(classes, flags, CLASSES)
        seen = np.bincount(classes, minlength=CLASSES)
        share = np.clip(np.rint((ones + 0.4) / (seen + 0.8) * TOTAL), 1, TOTAL - 1).astype(np.int64)
        mine = share[classes]
        counts, starts = np.where(flags, mine, TOTAL - mine), np.where(flags, 0, mine)
        stream = written(counts.astype(np.uint16), starts.astype(np.uint16), 1 << lanes)
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
