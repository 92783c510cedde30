"""Chunks -> frames: the one place where the bytes (`inrstore.format`) meet the fitting (`inrstore.fit`).

Torch is imported only when a lossy target asks for a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError, CorruptChunkError, MissingDependencyError
from inrstore.format import chunk as chunks_
from inrstore.format import dtypes, frame, levels, normalize, planes, quality, siren
from inrstore.format.mask import Mask, narrow
from inrstore.format.problem import FitProblem
from inrstore.format.target import Target
from inrstore.options import EncodeOptions, Progress, ProgressCallback

_STEP_TRIALS = (1.3, 1.2, 1.1, 1.05, 1.02, 1.0, 0.98, 0.94, 0.88, 0.8, 0.6)
_LARGEST = 1e30  # magnitudes whose squares leave float32 are not for networks
_SMALLEST_FIT = 1024  # bytes of fallback under which no network can pay


def encode_chunks(
    chunks: Sequence[npt.NDArray[Any]],
    targets: Target | Sequence[Target],
    options: EncodeOptions | None = None,
    progress: ProgressCallback | None = None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
) -> list[bytes]:
    """Encode chunks together, so that their networks are fitted in batches.

    Every candidate is decoded by the reader's own decoder; the smallest frame that keeps its target is
    returned, so a frame is never worse than asked and never larger than the raw chunk and its frame (but for
    a mask, which is kept even where raw values would be smaller).

    Parameters
    ----------
    chunks : sequence of ndarray
        Any shape up to eight axes, any byte order and memory layout.
    targets : Target or sequence of Target
        One for all or one for each.
    options : EncodeOptions, optional
    progress : callable, optional
        Called with a `Progress` now and then.
    masks : sequence of (ndarray of bool or None), optional
        One for each chunk, broadcastable to its shape: True is inside. Values outside are not looked at, cost
        next to nothing and decode to 0.

    Returns
    -------
    list of bytes
        One frame for each chunk.

    Raises
    ------
    ConfigurationError
        A dtype or shape that the format does not hold, or a target or mask that does not fit the chunk.
    MissingDependencyError
        A network is needed and torch is not installed.
    """
    options = options or EncodeOptions()
    each = [targets] * len(chunks) if isinstance(targets, Target) else list(targets)
    if len(each) != len(chunks):
        raise ConfigurationError(f"{len(each)} targets for {len(chunks)} chunks")
    given = [None] * len(chunks) if masks is None else list(masks)
    if len(given) != len(chunks):
        raise ConfigurationError(f"{len(given)} masks for {len(chunks)} chunks")
    if any(t.rmse is not None for t in each):
        require_fit()
    frames: list[bytes] = []
    problems: list[FitProblem] = []
    for index, (chunk, target, outline) in enumerate(zip(chunks, each, given, strict=True)):
        array = np.asarray(chunk)
        if array.dtype.kind == "b":
            array = np.asarray(array.view(np.uint8) != 0)  # other bytes than 0 and 1 are true, too
        array, mask = _masked(array, outline)
        frames.append(_encode_without_network(array, target, mask))
        problem = _problem(index, array, target, len(frames[-1]), mask)
        if problem is not None:
            problems.append(problem)
    if problems:
        from inrstore.fit.search import fit_networks

        for problem, network in fit_networks(problems, options, progress):
            coded = _seal_network(problem, network)
            if coded is not None and len(coded) < len(frames[problem.index]):
                frames[problem.index] = coded
    if progress is not None:
        progress(Progress(chunks_done=len(chunks), chunks_total=len(chunks), fraction=1.0, rmse=None, stage="done"))
    return frames


def require_fit() -> None:
    """Raise `MissingDependencyError` unless torch can be imported."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingDependencyError(
            "encoding to a target rmse fits networks with torch, which is not installed: "
            'pip install "inrstore[fit]" (reading needs no torch)'
        )


def _masked(chunk: npt.NDArray[Any], outline: npt.NDArray[np.bool_] | None) -> tuple[npt.NDArray[Any], Mask | None]:
    """Return the chunk with zeros outside its mask, and the mask, or None where all is inside."""
    if outline is None:
        return chunk, None
    mask = narrow(outline, chunk.shape)
    if mask.all():
        return chunk, None
    fortran = chunk.flags.f_contiguous and not chunk.flags.c_contiguous
    chunk = np.array(chunk, order="F" if fortran else "C")
    np.copyto(chunk, np.zeros((), chunk.dtype), where=~mask)
    return chunk, mask


def _encode_without_network(chunk: npt.NDArray[Any], target: Target, mask: Mask | None = None) -> bytes:
    dtypes.code_of(chunk.dtype)  # names an unsupported dtype before any work
    trivial = chunks_.encode_trivial(chunk, mask)
    if trivial is not None:
        return trivial
    target.channel_scale(chunk.shape)  # names a scale of the wrong length
    coded = None if target.lossless or chunk.dtype.kind == "b" else _encode_on_grid(chunk, target, mask)
    if coded is not None and len(coded) < frame.max_encoded_size(chunk.shape, chunk.dtype):
        return coded if _decodes(coded, chunk, target, mask) else chunks_.encode_raw(chunk)
    exact = [chunks_.encode_lossless(chunk, mask)]
    predicted = _encode_predicted(chunk, mask)
    if predicted is not None:
        exact.append(predicted)
    for best in sorted(exact, key=len):
        if _decodes(best, chunk, Target(lossless=True), mask):
            return best
    return chunks_.encode_raw(chunk)


def _encode_predicted(chunk: npt.NDArray[Any], mask: Mask | None = None) -> bytes | None:
    """Return the frame of the lossless predictor, or None for what it does not hold."""
    from inrstore.fit import predictor

    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).reshape(chunk.shape)
    core, envelope = normalize.crop(values, mask)
    payload = predictor.encode(core, envelope.mask)
    if payload is None:
        return None
    return chunks_.seal(frame.PREDICTOR, chunk, normalize.write(envelope, chunk.shape) + payload)


def _decodes(coded: bytes, chunk: npt.NDArray[Any], target: Target, mask: Mask | None = None) -> bool:
    """Return whether readers get what was promised; a frame is not stored on the word of the encoder alone."""
    try:
        decoded = chunks_.decode_chunk(coded, chunk.shape, chunk.dtype)
    except CorruptChunkError:
        return False
    little = dtypes.little(chunk.dtype)
    values, decoded = np.ascontiguousarray(chunk, little), np.ascontiguousarray(decoded, little)
    if target.rmse is not None:
        _, envelope = normalize.split(values, mask)
        return quality.meets(values, decoded, target, envelope.box, envelope.mask)
    return quality.meets(values, decoded, target)


def _encode_on_grid(chunk: npt.NDArray[Any], target: Target, mask: Mask | None = None) -> bytes | None:
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
        scale = target.channel_scale(chunk.shape)
        steps = np.broadcast_to(scale, chunk.shape)[envelope.box]
        steps = np.moveaxis(steps, axis or 0, 0).reshape(steps.shape[axis or 0], -1)[:, 0] if scale.size > 1 else scale
        # The error of a fine uniform quantiser has a standard deviation of step / sqrt(12).
        trials = [target.rmse * math.sqrt(12) * f * steps.reshape(-1) for f in _STEP_TRIALS]
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


def _problem(
    index: int, chunk: npt.NDArray[Any], target: Target, fallback: int, mask: Mask | None = None
) -> FitProblem | None:
    """Return what there is to fit, or None when no network is wanted or could pay."""
    if target.rmse is None or fallback < _SMALLEST_FIT or chunk.dtype.kind == "b":
        return None
    values = np.array(chunk, dtypes.little(chunk.dtype), order="C")
    core, envelope = normalize.split(values, mask)
    if mask is not None:
        fallback -= len(normalize.write(replace(envelope, exceptions=None), chunk.shape))  # both must carry it
        if fallback < _SMALLEST_FIT:
            return None
    axis = target.resolve_channel_axis(chunk.ndim)
    if core.ndim - (axis is not None) < 1 or max(abs(float(core.min())), abs(float(core.max()))) > _LARGEST:
        return None
    scale = np.broadcast_to(target.channel_scale(chunk.shape), chunk.shape)[envelope.box]
    per_channel = scale.take(0, axis=0).reshape(-1)[:1] if axis is None else np.moveaxis(scale, axis, 0).reshape(
        core.shape[axis], -1)[:, 0]  # fmt: skip
    return FitProblem(index=index, chunk=values, like=chunk, core=core, envelope=envelope,
                      channel_axis=axis, scale=per_channel, target=target, budget=fallback)  # fmt: skip


def _seal_network(problem: FitProblem, network: siren.Network | None) -> bytes | None:
    """Return the frame of a fitted network if what readers decode keeps the target."""
    if network is None:
        return None
    payload = normalize.write(problem.envelope, problem.chunk.shape) + siren.write(network)
    coded = chunks_.seal_checked(frame.SIREN, problem.like, payload)
    decoded = chunks_.decode_chunk(coded).astype(problem.chunk.dtype, copy=False)
    envelope = problem.envelope
    return coded if quality.meets(problem.chunk, decoded, problem.target, envelope.box, envelope.mask) else None
