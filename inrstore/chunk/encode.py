"""Chunks -> frames: the one place where the bytes (`inrstore.chunk`) meet the fitting (`inrstore.chunk.inr.fit`).

Torch is imported only when a lossy target asks for a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import candidates, dtypes, frame, normalize, quality
from inrstore.chunk import frames as chunks_
from inrstore.chunk.inr import siren
from inrstore.chunk.mask import Mask, narrow
from inrstore.chunk.neural.network import Network
from inrstore.chunk.problem import FitProblem
from inrstore.chunk.target import Target
from inrstore.errors import ConfigurationError, MissingDependencyError
from inrstore.options import EncodeOptions, Progress, ProgressCallback, available_cores

_LARGEST = 1e30  # magnitudes whose squares leave float32 are not for networks
_VALUES_AT_ONCE = 1 << 26  # an encoder needs some 50 bytes for each
_SMALLEST_FIT = 1024  # bytes of fallback under which no network can pay


def encode_chunks(
    chunks: Sequence[npt.NDArray[Any]],
    targets: Target | Sequence[Target],
    options: EncodeOptions | None = None,
    progress: ProgressCallback | None = None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
    models: Sequence[Network] = (),
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
    models : sequence of Network, optional
        Networks that the codec configuration brings; a lossless chunk may name one. Readers need them, too.

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
    if options.networks and any(t.rmse is not None for t in each):
        require_fit()
    arrays, outlines = [], []
    for chunk, outline in zip(chunks, given, strict=True):
        array = np.asarray(chunk)
        if array.dtype.kind == "b":
            array = np.asarray(array.view(np.uint8) != 0)  # other bytes than 0 and 1 are true, too
        array, mask = _masked(array, outline)
        arrays.append(array)
        outlines.append(mask)
    frames: list[bytes] = []
    jobs = [partial(_encode_without_network, a, t, m, models, options)
            for a, t, m in zip(arrays, each, outlines, strict=True)]  # fmt: skip
    together = max(1, _VALUES_AT_ONCE // max((a.size for a in arrays if a.size), default=1))
    for made in _in_order(jobs, min(together, options.threads or available_cores())):
        frames.append(made)
        if progress is not None and not options.networks:
            done = len(frames)
            progress(Progress(chunks_done=done, chunks_total=len(chunks), fraction=done / len(chunks), rmse=None,
                              stage="coding"))  # fmt: skip
    problems: list[FitProblem] = []
    if options.networks:
        for index, (array, target, made, mask) in enumerate(zip(arrays, each, frames, outlines, strict=True)):
            problem = _problem(index, array, target, len(made), mask)
            if problem is not None:
                problems.append(problem)
    if problems:
        from inrstore.chunk.inr.fit.search import fit_networks

        for problem, network in fit_networks(problems, options, progress):
            coded = _seal_network(problem, network)
            if coded is not None and len(coded) < len(frames[problem.index]):
                frames[problem.index] = coded
    if progress is not None:
        progress(Progress(chunks_done=len(chunks), chunks_total=len(chunks), fraction=1.0, rmse=None, stage="done"))
    return frames


def _in_order(jobs: Sequence[Callable[[], bytes]], threads: int) -> Iterator[bytes]:
    """Yield the results of jobs in their order, several worked on at a time: numpy leaves cores to each other."""
    if len(jobs) < 2 or threads < 2:
        for job in jobs:
            yield job()
        return
    with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
        pending = [pool.submit(job) for job in jobs]
        try:
            for result in pending:
                yield result.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def require_fit() -> None:
    """Raise `MissingDependencyError` unless torch can be imported."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingDependencyError(
            "this mode or preset fits networks with torch, which is not installed: "
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


def _encode_without_network(chunk: npt.NDArray[Any], target: Target, mask: Mask | None, models: Sequence[Network],
                            options: EncodeOptions) -> bytes:  # fmt: skip
    dtypes.code_of(chunk.dtype)  # names an unsupported dtype before any work
    trivial = chunks_.encode_trivial(chunk, mask)
    if trivial is not None:
        return trivial
    target.channel_scale(chunk.shape)  # names a scale of the wrong length
    if not target.lossless and chunk.dtype.kind != "b":
        most = frame.max_encoded_size(chunk.shape, chunk.dtype)
        for coded in sorted(_lossy(chunk, target, mask, options), key=len):
            if len(coded) < most and candidates.keeps(coded, chunk, target, mask):
                return coded
    exact = [chunks_.encode_lossless(chunk, mask), candidates.predicted(chunk, mask)]
    if models:
        exact.append(candidates.neural(chunk, mask, models, device=options.device))
    for best in sorted((coded for coded in exact if coded is not None), key=len):
        if candidates.keeps(best, chunk, Target(lossless=True), mask, models):
            return best
    return chunks_.encode_raw(chunk)


def _lossy(chunk: npt.NDArray[Any], target: Target, mask: Mask | None, options: EncodeOptions) -> list[bytes]:
    """Return frames that should keep a target; the grid alone, which is far larger, where nothing else does."""
    found = [candidates.predicted_on_grid(chunk, target, mask)]
    if options.mode != "network":
        found.append(candidates.transformed(chunk, target, options.preset, mask))
    out = [coded for coded in found if coded is not None]
    if not out:
        coded = candidates.on_grid(chunk, target, mask)
        out += [] if coded is None else [coded]
    return out


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
    per_channel = candidates.scales_of(target, chunk.shape, envelope, axis)
    if axis is not None and per_channel.size == 1:
        per_channel = np.repeat(per_channel, core.shape[axis])
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
