"""Chunk -> frame in one mode each, for `encoder` to choose from: all modes but networks fitted to the chunk.

Every function returns a frame, or None for what its mode does not hold or keep the target with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, frame, normalize, quality
from inrstore.chunk import frames as chunks_
from inrstore.chunk.byteplanes import levels, planes
from inrstore.chunk.mask import Mask
from inrstore.chunk.neural.network import Network
from inrstore.chunk.target import Target
from inrstore.errors import CorruptChunkError
from inrstore.options import Device, Preset

_STEP_TRIALS = (1.3, 1.2, 1.1, 1.05, 1.02, 1.0, 0.98, 0.94, 0.88, 0.8, 0.6)


def keeps(coded: bytes, chunk: npt.NDArray[Any], target: Target, mask: Mask | None = None,
          models: Sequence[Network] = ()) -> bool:  # fmt: skip
    """Return whether readers get what was promised; a frame is not stored on the word of the encoder alone."""
    try:
        decoded = chunks_.decode_chunk(coded, chunk.shape, chunk.dtype, {m.digest: m for m in models})
    except CorruptChunkError:
        return False
    little = dtypes.little(chunk.dtype)
    values, decoded = np.ascontiguousarray(chunk, little), np.ascontiguousarray(decoded, little)
    if target.rmse is not None:
        _, envelope = normalize.split(values, mask)
        return quality.meets(values, decoded, target, envelope.box, envelope.mask)
    return quality.meets(values, decoded, target)


# ---- lossless ----------------------------------------------------------------------------------------------


def predicted(chunk: npt.NDArray[Any], mask: Mask | None = None) -> bytes | None:
    """Return the frame of the lossless predictor."""
    from inrstore.chunk.predictor import encode as predictor

    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).reshape(chunk.shape)
    core, envelope = normalize.crop(values, mask)
    payload = predictor.encode(core, envelope.mask)
    if payload is None:
        return None
    return chunks_.seal(frame.PREDICTOR, chunk, normalize.write(envelope, chunk.shape) + payload)


def neural(chunk: npt.NDArray[Any], mask: Mask | None, models: Sequence[Network], *, shared: bool = True,
           device: Device = "cpu") -> bytes | None:  # fmt: skip
    """Return the lossless frame that the best of some networks makes, or None for what the mode does not hold.

    Parameters
    ----------
    chunk : ndarray
    mask : ndarray of bool or None
        As `narrow` gives it; the chunk is 0 outside.
    models : sequence of Network
    shared : bool
        The network is named by its digest, and readers need it; otherwise the frame holds it.
    device : {"auto", "cpu", "cuda"}
        Where torch makes the products, with "cuda"; otherwise numpy makes them, to the same bits.
    """
    from inrstore.chunk.neural import encode as neural_encode

    corrections = None
    if device == "cuda":
        from inrstore.chunk.inr.fit.lossless import Exact

        corrections = Exact(device)
    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).reshape(chunk.shape)
    core, envelope = normalize.crop(values, mask)
    payload = neural_encode.encode(core, models, envelope.mask, shared=shared, corrections=corrections)
    if payload is None:
        return None
    return chunks_.seal(frame.NEURAL, chunk, normalize.write(envelope, chunk.shape) + payload)


# ---- lossy -------------------------------------------------------------------------------------------------


def on_grid(chunk: npt.NDArray[Any], target: Target, mask: Mask | None = None) -> bytes | None:
    """Return the frame of the coarsest uniform grid that keeps the target, or None when that is exact anyway."""
    values = np.array(chunk, dtypes.little(chunk.dtype), order="C")
    core, envelope = normalize.split(values, mask)
    axis = target.resolve_channel_axis(chunk.ndim)
    whole = core.dtype.kind in "iu"
    if target.max_error is not None:
        bound = math.floor(target.max_error) if whole else target.max_error * (1 - 1e-9)
        trials = [np.array([2.0 * bound + whole])]
    else:
        assert target.rmse is not None
        steps = scales_of(target, chunk.shape, envelope, axis)
        # The error of a fine uniform quantiser has a standard deviation of step / sqrt(12).
        trials = [target.rmse * math.sqrt(12) * f * steps for f in _STEP_TRIALS]
    for trial in trials:
        grid = levels.Grid.over(core, trial, axis)
        if whole and (grid.steps == 1).all():
            return None
        try:
            decoded = grid.values(grid.index(core), core.dtype)
            rebuilt = normalize.join(decoded, envelope, chunk.shape)
            if quality.meets(values, rebuilt, target, envelope.box, envelope.mask):
                payload = normalize.write(envelope, chunk.shape) + planes.encode(core, grid, envelope.mask)
                return chunks_.seal(frame.PLANES, chunk, payload, rebuilt)
        except OverflowError:
            return None
    return None


def predicted_on_grid(chunk: npt.NDArray[Any], target: Target, mask: Mask | None = None) -> bytes | None:
    """Return the frame of the predictor for integers rounded to every (2 e + 1)-th value around the commonest one."""
    if target.max_error is None or chunk.dtype.kind not in "iu" or chunk.dtype.itemsize > 4:
        return None
    step = 2 * math.floor(min(target.max_error, 2.0**31)) + 1
    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).reshape(chunk.shape).astype(np.int64)
    if step == 1:
        return None
    inside = values if mask is None else values[np.broadcast_to(mask, values.shape)]
    low, high = int(inside.min()), int(inside.max())
    middle = low + int(np.bincount(np.minimum(inside.reshape(-1) - low, 1 << 16)).argmax())
    coarse = middle + (values - middle + step // 2) // step * step
    info = np.iinfo(chunk.dtype)
    if middle + (low - middle + step // 2) // step * step < info.min:
        return None
    if middle + (high - middle + step // 2) // step * step > info.max:
        return None
    if mask is not None:
        coarse = np.where(mask, coarse, 0)
    return predicted(np.asarray(coarse.astype(chunk.dtype), order="C"), mask)


def transformed(chunk: npt.NDArray[Any], target: Target, preset: Preset, mask: Mask | None = None) -> bytes | None:
    """Return the frame of KLT and wavelets that just keeps a target rmse."""
    from inrstore.chunk.transform import encode as transform

    if target.rmse is None or chunk.dtype.kind not in "iuf":
        return None
    values = np.array(chunk, dtypes.little(chunk.dtype), order="C")
    core, envelope = normalize.split(values, mask)
    axis = target.resolve_channel_axis(chunk.ndim)
    scale = scales_of(target, chunk.shape, envelope, axis)

    def error(decoded: npt.NDArray[Any]) -> float:
        rebuilt = normalize.join(np.array(decoded), envelope, chunk.shape)
        return quality.rmse(values, rebuilt, target, envelope.box, envelope.mask)

    coded = transform.encode(core, axis, scale, target.rmse, error, envelope.mask, transform.EFFORTS[preset])
    if coded is None:
        return None
    try:
        return chunks_.seal_checked(frame.TRANSFORM, chunk, normalize.write(envelope, chunk.shape) + coded)
    except CorruptChunkError:  # a limit of readers that this encoder did not foresee
        return None


def scales_of(target: Target, shape: tuple[int, ...], envelope: normalize.Envelope,
              axis: int | None) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return what errors inside the box of a chunk are divided by: one number, or one for each measurement."""
    scale = target.channel_scale(shape)
    if scale.size == 1 or axis is None:
        return np.asarray(scale, np.float64).reshape(-1)[:1]
    inside = np.broadcast_to(scale, shape)[envelope.box]
    first: npt.NDArray[np.float64] = np.moveaxis(inside, axis, 0).reshape(inside.shape[axis], -1)[:, 0]
    return first
