"""What encoders do with all values, by compiled loops where they serve: the same as without them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.kernels import choice
from inrstore.chunk.transform import decode, wavelet
from inrstore.chunk.transform.adaptive import CONTEXTS, SIZES
from inrstore.chunk.transform.compiled import around, room
from inrstore.chunk.transform.contexts import FEATURES, PASSES, Magnitudes, kind_of
from inrstore.chunk.transform.header import Header
from inrstore.chunk.transform.rdoq import FLAG_LOGS, SIZE_LOGS, Chooser, Pass
from inrstore.chunk.transform.scan import Coefficients
from inrstore.chunk.transform.scan import scan as scan_in_numpy
from inrstore.chunk.transform.subbands import Subband, Triple
from inrstore.chunk.transform.weights import Sampler

_FACTORS = np.array([lift / 2.0**wavelet.PRECISION for lift in wavelet.LIFTS], np.float32)


def _loops(values: int) -> ModuleType | None:
    return choice.find("transform_encode", values)


# ---- choosing ----------------------------------------------------------------------------------------------


def scan(subbands: Sequence[Subband], active: Iterable[int], levels: Triple, weights: Ints, chooser: Chooser,
         sampler: Sampler | None = None) -> Coefficients:  # fmt: skip
    """Return what `scan.scan` does, where a chooser chooses and a sampler watches."""
    positions = sum(math.prod(subband.shape) for subband in subbands)
    loops, reading = _loops(positions), choice.find("transform", positions)
    if loops is None or reading is None:
        return scan_in_numpy(subbands, active, levels, weights, chooser, sampler, trellis=chooser.trellis)
    chooser.loops = loops
    out: Coefficients = {}
    coded: dict[tuple[int, Triple], Magnitudes] = {}
    for number, (subband, components) in enumerate(zip(subbands, active, strict=True)):
        count, place = int(components), (subband.level, subband.key)
        coded = {key: value for key, value in coded.items() if key[0] <= subband.level + 1}
        values = out[place] = np.zeros((count, *subband.shape), np.int32)
        coded[place] = np.zeros((0, *subband.shape), np.uint8)
        if not values.size:
            continue
        shape = np.array(values.shape, np.int64)
        surroundings = around(reading, subband, shape, levels, coded)
        clipped, inside = np.zeros(values.shape, np.uint8), np.zeros(room(shape), np.uint8)
        _choose(loops, chooser, number, values, shape, clipped, inside, surroundings,
                np.ascontiguousarray(weights[kind_of(subband)]), np.array(subband.key, np.int64))  # fmt: skip
        if sampler is not None:
            _sample(loops, sampler, subband, shape, clipped, inside, surroundings)
        coded[place] = clipped
    return out


def _choose(loops: ModuleType, chooser: Chooser, number: int, out: npt.NDArray[np.int32], shape: Ints,
            clipped: Magnitudes, inside: Magnitudes, surroundings: Sequence[npt.NDArray[Any]], weights: Ints,
            axes: Ints) -> None:  # fmt: skip
    """Choose the coefficients of a subband, and keep their symbols: what `Chooser.take` does in four passes."""
    values, size = np.ascontiguousarray(chooser.whole(number)[: len(out)], np.float32), out.size
    coded_flags, contexts = np.empty(size, np.uint8), np.empty(size, np.uint8)
    magnitudes, ends = np.empty(size, np.int32), np.zeros((4, 2), np.int64)
    flags, sizes = np.zeros((2, 4, *chooser.model.flags.shape), np.int64), np.zeros((2, 4, CONTEXTS, SIZES), np.int64)
    worth, excess, excess_low = np.zeros((4, 3, len(out))), np.zeros((4, 2), np.int64), np.zeros((4, 2))
    count = loops.encode_subband(
        values.reshape(-1), out.reshape(-1), shape, clipped.reshape(-1), inside, *surroundings, weights, axes,
        chooser.model.flags, chooser.model.sizes, chooser.price, FLAG_LOGS, SIZE_LOGS, coded_flags, contexts,
        magnitudes, ends, flags[0], flags[1], sizes[0], sizes[1], worth, excess, excess_low,
        chooser.walk)  # fmt: skip
    contexts, magnitudes = contexts[:count].copy(), magnitudes[:count].copy()
    chooser.compiled.append((coded_flags, contexts, magnitudes, ends, flags[0], sizes[0]))
    position = live = 0
    for step, (until, live_until) in enumerate(ends.tolist()):
        if until > position:
            some = slice(live, live_until)
            chooser.add_fields(contexts[some].astype(np.int64), magnitudes[some].astype(np.int64))
            chooser.account(number, Pass(worth[step, 0], worth[step, 1], worth[step, 2], flags[1, step], flags[0, step],
                                         sizes[1, step], sizes[0, step], excess[step], excess_low[step]))  # fmt: skip
        position, live = until, live_until


def _sample(loops: ModuleType, sampler: Sampler, subband: Subband, shape: Ints, clipped: Magnitudes,
            inside: Magnitudes, surroundings: Sequence[npt.NDArray[Any]]) -> None:  # fmt: skip
    """Show a sampler what `scan` shows it. Only earlier passes were known, so it can be shown when all is coded."""
    parent, _, beside, _ = surroundings
    axes = np.array(subband.key, np.int64)
    for step, parities in enumerate(PASSES):
        for parity in parities:
            lengths = [len(range(p, n, 2)) for p, n in zip(parity, subband.shape, strict=True)]
            size = len(clipped) * math.prod(lengths)
            if not size:
                continue
            picked = sampler.pick(size)
            rows, values = np.zeros((FEATURES, len(picked)), np.uint16), np.empty(len(picked), np.uint8)
            loops.features(picked, step, np.array(parity, np.int64), shape, clipped.reshape(-1), inside, parent, beside,
                           axes, rows, values)  # fmt: skip
            sampler.keep(kind_of(subband), step, rows, values, size)


# ---- transforms --------------------------------------------------------------------------------------------


def forward(volumes: wavelet.Singles, levels: Triple) -> dict[tuple[int, Triple], wavelet.Singles]:
    """Return what `wavelet.forward` does."""
    loops = _loops(volumes.size)
    if loops is None:
        return wavelet.forward(volumes, levels)
    return wavelet.forward(volumes, levels, lambda values, axis: _split(loops, values, axis))


def _split(loops: ModuleType, values: wavelet.Singles, axis: int) -> tuple[wavelet.Singles, wavelet.Singles]:
    """Return what `wavelet.split` does."""
    shape, length = values.shape, values.shape[axis]
    if length < 2 or not values.size:
        return wavelet.split(values, axis)
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    halves = [np.empty((*shape[:axis], n, *shape[axis + 1 :]), np.float32) for n in ((length + 1) // 2, length // 2)]
    flat = [np.ascontiguousarray(values), *halves]
    if axis == len(shape) - 1:
        loops.split_columns(*(part.reshape(before, -1) for part in flat), _FACTORS)
    else:
        loops.split_rows(*(part.reshape(before, -1, after) for part in flat), _FACTORS)
    return halves[0], halves[1]


def components_of(header: Header, lengths: Triple, subbands: Sequence[Subband],
                  coefficients: Coefficients) -> wavelet.Doubles:  # fmt: skip
    """Return what `decode.components_of` does."""
    loops = choice.find("transform", math.prod(lengths) * header.basis.shape[1])
    return decode.components_of(header, lengths, subbands, coefficients, loops)


def outputs(header: Header, volumes: wavelet.Doubles, dtype: np.dtype[Any],
            box: tuple[int, ...]) -> npt.NDArray[Any]:  # fmt: skip
    """Return what `decode.outputs` does."""
    return decode.outputs(header, volumes, dtype, box, choice.find("transform", math.prod(box)))


def synthesis(header: Header, lengths: Triple, subbands: Sequence[Subband], coefficients: Coefficients,
              dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:  # fmt: skip
    """Return what `decode.synthesis` does."""
    loops = choice.find("transform", math.prod(box))
    return decode.synthesis(header, lengths, subbands, coefficients, dtype, box, loops)
