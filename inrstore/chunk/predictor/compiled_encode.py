"""A stage by compiled loops: the same as `kernel` gives, for values that are all known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints, Singles
from inrstore.chunk.predictor.compiled import Weights
from inrstore.chunk.predictor.planes import Padded
from inrstore.chunk.predictor.regression import PAD, Box

_ARRAYS, _FLAGS = 4, 3  # that regressors are in at most, and flags


class _Neighbours:
    """Arrays and the places of neighbours in them, as the loops want them."""

    def __init__(self, boxes: Sequence[Box], arrays: Mapping[str, Padded]) -> None:
        names = list(dict.fromkeys(box.array for box in boxes))
        one = arrays[names[0]].array
        down, across = one.shape[1] * one.shape[2], one.shape[2]
        self.origin = PAD * (down + across)
        every = [(names.index(b.array), (b.dy + i) * down + (b.dx + j) * across)
                 for b in boxes for i in range(b.rows) for j in range(b.columns)]  # fmt: skip
        self.arrays, self.offsets = (np.array(each, np.int64) for each in zip(*every, strict=True))
        self.memories = _memories(names, arrays, _ARRAYS)
        self.names = names


def _memories(names: Sequence[str], arrays: Mapping[str, Padded], count: int) -> tuple[Singles, ...]:
    """Return the arrays, not skewed, and empty ones after them."""
    found = [np.ascontiguousarray(arrays[name].array).reshape(-1) for name in names]
    return (*found, *[np.zeros(0, np.float32)] * (count - len(found)))


def predict(loops: ModuleType, weights: Weights, boxes: Sequence[Box], arrays: Mapping[str, Padded],
            flags: Mapping[str, Padded], known: npt.NDArray[np.int32], out: Sequence[npt.NDArray[np.generic]],
            classes: npt.NDArray[np.uint8] | None) -> None:  # fmt: skip
    """Fill in differences, phases, errors and activities, and classes of flags if there are any.

    Parameters
    ----------
    loops : module
        `inrstore.chunk.kernels.predictor_encode`.
    weights : Weights
    boxes : sequence of Box
        Of the regressors.
    arrays, flags : mapping of str to Padded
    known : ndarray of int32, shape (rows, columns, planes)
    out : sequence of ndarray of int32, uint8, float32 and float32, shape of `known`
    classes : ndarray of uint8, shape of `known`, optional
    """
    around = _Neighbours(boxes, arrays)
    every, activity, thresholds, _, flag_weights, down, across, numbers = weights.arrays
    with_flags = [name for name in around.names if name in flags] if classes is not None else []
    loops.predict(around.memories, _memories(with_flags, flags, _FLAGS), known, around.origin, around.arrays,
                  around.offsets, weights.near, every, activity, thresholds, flag_weights, down, across, numbers, *out,
                  np.zeros((0, 0, 0), np.uint8) if classes is None else classes)  # fmt: skip


def expect(loops: ModuleType, boxes: Sequence[Box], arrays: Mapping[str, Padded], weights: Ints, scale: int,
           active: Singles, places: npt.NDArray[np.uint8]) -> None:  # fmt: skip
    """Add to each phase four times the context of the expected error.

    Parameters
    ----------
    loops, boxes, arrays
        As for `predict`; boxes are those of errors.
    weights : ndarray of int64
        One for each error.
    scale : int
    active : ndarray of float32, shape (rows, columns, planes)
    places : ndarray of uint8, shape of `active`
        Phases, which become places.
    """
    around = _Neighbours(boxes, arrays)
    loops.expect(around.memories, around.origin, around.arrays, around.offsets, weights.astype(np.float32), scale,
                 active, places)  # fmt: skip
