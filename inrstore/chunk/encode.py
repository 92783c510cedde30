"""Chunks -> frames: the modes bid, and the smallest bid that keeps its target is taken (mode decision).

The mirror of `inrstore.chunk.decode`: array -> envelope -> mode -> frame. Nothing is stored on the word of an encoder:
what is taken has been decoded by the reader's own decoder, once, and compared with what was promised.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import arithmetic, dtypes, frame, quality
from inrstore.chunk.boxes import NO_BUDGET, Fitted, together
from inrstore.chunk.context import Context
from inrstore.chunk.decode import values_of
from inrstore.chunk.frame import Frame
from inrstore.chunk.mask import Mask, narrow
from inrstore.chunk.modes import FALLBACK, MODEL, MODES, NEURAL, RAW, SEQUENCE, SIMPLE, Mode
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import Shared
from inrstore.chunk.shared import of as shared_of
from inrstore.chunk.task import Task
from inrstore.errors import ConfigurationError, CorruptChunkError, MissingDependencyError, NotHeldError
from inrstore.options import EncodeOptions, Progress, ProgressCallback, available_cores

_VALUES_AT_ONCE = 1 << 26  # an encoder needs some 50 bytes for each
_VALUES_TOGETHER = 1 << 27  # of chunks that share a step
_ALIKE = 0.25  # of the largest box; smaller ones are coded alone
_TINY = 1e-300
_PER_PASS = 0.8  # of what is left to do, after each time that all chunks of an image are coded


@arithmetic.usual()
def encode_chunks(
    chunks: Sequence[npt.NDArray[Any]],
    targets: Target | Sequence[Target],
    options: EncodeOptions | None = None,
    progress: ProgressCallback | None = None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
    shared: Shared | None = None,
) -> list[bytes]:
    """Encode chunks together, so that their networks are fitted in batches.

    The smallest frame that keeps its target is returned, so a frame is never worse than asked and never larger than
    the raw chunk and its frame (but for a mask, which is kept even where raw values would be smaller). In mode siren a
    network holds every lossy chunk that is not of one value, whatever it costs.

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
    shared : mapping of bytes to bytes, optional
        Parameters that the codec configuration brings, by digest; a chunk may name one. Readers need them, too.

    Returns
    -------
    list of bytes
        One frame for each chunk.

    Raises
    ------
    ConfigurationError
        A dtype or shape that the format does not hold, or a target or mask that does not fit the chunk.
    MissingDependencyError
        A network is needed and torch is not installed, or AV1 is asked for and PyAV cannot make it.
    NotHeldError
        In mode siren, if no network keeps the target of a chunk.
    """
    options = options or EncodeOptions()
    each = [targets] * len(chunks) if isinstance(targets, Target) else list(targets)
    if len(each) != len(chunks):
        raise ConfigurationError(f"{len(each)} targets for {len(chunks)} chunks")
    tasks = _tasks(chunks, each, options, masks, shared)
    if options.strict:
        return _held(tasks, options, progress)
    frames: list[bytes] = []
    at_once = max(1, _VALUES_AT_ONCE // max((t.chunk.size for t in tasks if t.chunk.size), default=1))
    jobs = [partial(_decide, task) for task in tasks]
    for made in _in_order(jobs, min(at_once, options.threads or available_cores())):
        frames.append(made)
        if progress is not None and not options.networks:
            done = len(frames)
            progress(Progress(chunks_done=done, chunks_total=len(chunks), fraction=done / len(chunks), rmse=None,
                              stage="coding"))  # fmt: skip
    _fit(tasks, frames, options, progress)
    if progress is not None:
        progress(Progress(chunks_done=len(chunks), chunks_total=len(chunks), fraction=1.0, rmse=None, stage="done"))
    return frames


@dataclass(frozen=True)
class Together:
    """The chunks of an image.

    Parameters
    ----------
    frames : list of bytes
        One for each chunk.
    worst : float
        The largest error of a chunk over the target; 1 if none is above it.
    parameters : tuple of bytes
        What they share: the codec configuration has to bring it.
    """

    frames: list[bytes]
    worst: float = 1.0
    parameters: tuple[bytes, ...] = ()


@arithmetic.usual()
def encode_together(
    chunks: Sequence[npt.NDArray[Any]],
    target: Target,
    options: EncodeOptions | None = None,
    progress: ProgressCallback | None = None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
) -> Together:
    """Encode the chunks of an image so that they keep a target rmse together, in the fewest bytes.

    Bits go where they save most, so one chunk may have a larger error than another; over the coded values of all
    (finite, in their boxes, inside their masks) the root mean square error is at most the target.

    Parameters
    ----------
    chunks : sequence of ndarray
        Of one dtype and shape.
    target : Target
        Of an rmse.
    options, progress, masks : optional
        As for `encode_chunks`.

    Returns
    -------
    Together

    Raises
    ------
    ConfigurationError, MissingDependencyError, NotHeldError
        As `encode_chunks`.
    """
    options = options or EncodeOptions()
    tasks = _tasks(chunks, [target] * len(chunks), options, masks, None)
    if options.strict:
        return Together(_held(tasks, options, progress))
    found = [_simple(task) if task.target == target else _decide(task) for task in tasks]
    worst, threads, parameters = 1.0, options.threads or available_cores(), list[bytes]()

    def tell(stage: str, ahead: float = 0.0) -> None:
        if progress is not None:
            done = sum(f is not None for f in found)
            progress(Progress(chunks_done=done, chunks_total=len(chunks), fraction=(done + ahead) / len(chunks),
                              rmse=None, stage=stage))  # fmt: skip

    tell("coding")
    if target.rmse is not None:
        for numbers in _groups(tasks, found):
            passes = itertools.count(1)

            def passed(group: int = len(numbers), passes: Iterator[int] = passes) -> None:
                tell("coding", group * (1 - _PER_PASS ** next(passes)))  # how many there will be is not known

            made, parameter = _bids([tasks[number] for number in numbers], threads, passed)
            parameters += [parameter] if parameter else []
            for number, (coded, error) in zip(numbers, made, strict=False):
                found[number] = coded
                worst = max(worst, error / target.rmse)
                if options.networks:  # one that is found later on may have this error
                    tasks[number] = replace(tasks[number], target=replace(target, rmse=max(error, _TINY)))
            tell("coding")
    alone = [number for number, coded in enumerate(found) if coded is None]
    jobs = [partial(_decide, tasks[number]) for number in alone]
    for number, coded in zip(alone, _in_order(jobs, threads), strict=True):
        found[number] = coded
        tell("coding")
    frames = [coded for coded in found if coded is not None]
    _fit(tasks, frames, options, progress)
    tell("done")
    return Together(frames, worst, tuple(parameters))


@arithmetic.usual()
def encode_naming(
    shared: Shared,
    chunks: Sequence[npt.NDArray[Any]],
    options: EncodeOptions | None = None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
) -> list[bytes | None]:
    """Return the lossless frames that name a shared parameter, None for a chunk that none of them holds.

    They are not compared with frames of other modes: what a parameter saves in all chunks of an image tells whether
    it is worth its own bytes.

    Parameters
    ----------
    shared : mapping of bytes to bytes
        Parameters by digest.
    chunks, options, masks
        As for `encode_chunks`.
    """
    options = options or EncodeOptions()
    tasks = _tasks(chunks, [Target(lossless=True)] * len(chunks), options, masks, shared)

    def named(task: Task) -> bytes:
        payload = NEURAL.bid(task) if task.chunk.size and NEURAL.bid is not None else None
        return (None if payload is None else _checked(NEURAL, payload, task)) or b""

    jobs = [partial(named, task) for task in tasks]
    return [frame or None for frame in _in_order(jobs, options.threads or available_cores())]


@arithmetic.usual()
def encode_as(mode: Mode, chunk: npt.NDArray[Any], target: Target | None = None, mask: Mask | None = None,
              options: EncodeOptions | None = None, shared: Shared | None = None) -> bytes | None:  # fmt: skip
    """Return the frame that one mode alone makes of a chunk, or None where it makes none that keeps the target.

    Parameters
    ----------
    mode : Mode
    chunk : ndarray
    target : Target, optional
        Lossless without one.
    mask : ndarray of bool, optional
        As `narrow` gives it; the chunk is 0 outside.
    options, shared : optional
        As for `encode_chunks`.
    """
    task = Task(
        chunk, mask, target or Target(lossless=True), options or EncodeOptions(), Context.of(None, None, shared)
    )
    payload = None if mode.bid is None else mode.bid(task)
    return None if payload is None else _checked(mode, payload, task)


def seal(
    mode: Mode, like: npt.NDArray[Any], payload: bytes | memoryview, decoded: npt.NDArray[Any] | None = None
) -> bytes:
    """Return the frame of a payload.

    Parameters
    ----------
    mode : Mode
    like : ndarray
        Gives dtype, byte order, shape and memory layout.
    payload : bytes-like
    decoded : ndarray, optional
        What readers make of the payload; without it, it is decoded here.

    Raises
    ------
    ConfigurationError
        A shape that the format does not hold.
    """
    if math.prod(max(1, n) for n in like.shape) > limits.MAX_CHUNK_VALUES:  # as readers count
        raise ConfigurationError(f"a chunk of shape {like.shape}; the most is {limits.MAX_CHUNK_VALUES} values")
    if like.ndim > limits.MAX_DIMS:
        raise ConfigurationError(f"a chunk of {like.ndim} axes; the most is {limits.MAX_DIMS}")
    if decoded is None:
        decoded = values_of(Frame(mode.number, like.dtype, like.shape, 0, memoryview(payload)))
    return frame.pack(mode.number, like, frame.crc_of(decoded), payload)


def _tasks(chunks: Sequence[npt.NDArray[Any]], targets: Sequence[Target], options: EncodeOptions,
           masks: Sequence[npt.NDArray[np.bool_] | None] | None, shared: Shared | None) -> list[Task]:  # fmt: skip
    """Return a task for each chunk."""
    given = [None] * len(chunks) if masks is None else list(masks)
    if len(given) != len(chunks):
        raise ConfigurationError(f"{len(given)} masks for {len(chunks)} chunks")
    if options.networks and any(t.rmse is not None for t in targets):
        require_fit()
    context = Context.of(None, None, shared)
    flushes = arithmetic.flushes()
    tasks = []
    for chunk, target, outline in zip(chunks, targets, given, strict=True):
        inside = _masked(np.asarray(chunk), outline)
        if flushes and not target.lossless and arithmetic.has_tiny(inside[0]):
            target.channel_scale(inside[0].shape)  # names a scale of the wrong length
            target = Target(lossless=True)  # integers alone: floats would be others elsewhere
        tasks.append(Task(*inside, target, options, context))
    return tasks


def _fit(tasks: Sequence[Task], frames: list[bytes], options: EncodeOptions, progress: ProgressCallback | None) -> None:
    """Put smaller frames in the place of those that a mode which is fitted to many chunks has them for."""
    for mode in MODES:
        if mode.fit is not None:
            for made in mode.fit(tasks, [len(f) for f in frames], options, progress):
                coded = None if made.payload is None else _checked(mode, made.payload, tasks[made.index])
                if coded is not None and len(coded) < len(frames[made.index]):
                    frames[made.index] = coded


def _held(tasks: Sequence[Task], options: EncodeOptions, progress: ProgressCallback | None) -> list[bytes]:
    """Return frames of networks, and of what is lossless or of one value; `NotHeldError` for what is neither."""
    frames = [_decide(task) if task.target.lossless else _simple(task) for task in tasks]
    left = [number for number, coded in enumerate(frames) if coded is None]
    for number in left:
        _refuse_what_no_network_holds(number, tasks[number])
    asked = [tasks[number] for number in left]
    for mode in [mode for mode in MODES if mode.network] if left else []:
        assert mode.fit is not None
        for made in mode.fit(asked, [NO_BUDGET] * len(asked), options, progress):
            number = left[made.index]
            if made.payload is not None:
                frames[number] = _checked(mode, made.payload, tasks[number])
            if frames[number] is None:  # the others need not be fitted any more
                raise NotHeldError(number, _missed(made))
    for number in left:
        if frames[number] is None:
            raise NotHeldError(number, "no network was fitted")
    if progress is not None:
        progress(Progress(chunks_done=len(tasks), chunks_total=len(tasks), fraction=1.0, rmse=None, stage="done"))
    return [coded for coded in frames if coded is not None]


def _refuse_what_no_network_holds(number: int, task: Task) -> None:
    if task.target.rmse is None:
        raise NotHeldError(number, "a network keeps a mean error, and the largest one is asked for")
    if task.chunk.dtype.kind == "b":
        raise NotHeldError(number, "no network holds values that are true or false")


def _missed(made: Fitted) -> str:
    """Return why a chunk is not held."""
    if made.reason or made.decibels is None:
        return made.reason or "no network could be fitted"
    if made.decibels < 0:
        return f"no network keeps the target: the best is {-made.decibels:.2f} dB below it"
    return f"the best network is {made.decibels:.2f} dB over the target, and too far below it with rounded weights"


# ---- mode decision -----------------------------------------------------------------------------------------


def _decide(task: Task) -> bytes:
    """Return the frame of the smallest bid that keeps the target."""
    dtypes.code_of(task.chunk.dtype)  # names an unsupported dtype before any work
    task = replace(task)  # what it keeps of its box goes with it
    if not task.chunk.size:  # section 2: such a chunk is always raw
        return seal(RAW, task.chunk, b"", task.chunk)
    for asked, turns in _rounds(task):
        asking = [(mode, mode.bid) for mode in MODES if mode.bid is not None and mode.turn in turns]
        bids = [(mode, payload) for mode, bid in asking if (payload := bid(asked)) is not None]
        for mode, payload in sorted(bids, key=lambda b: len(b[1])):
            coded = _checked(mode, payload, asked)
            if coded is not None:
                return coded
    return seal(RAW, task.chunk, task.values.tobytes(), task.chunk)


def _simple(task: Task) -> bytes | None:
    """Return the frame of a chunk that one of the simplest modes holds, or None."""
    dtypes.code_of(task.chunk.dtype)
    if not task.chunk.size:
        return seal(RAW, task.chunk, b"", task.chunk)
    exact = replace(task, target=Target(lossless=True))
    for mode in MODES:
        if mode.turn == SIMPLE and mode.bid is not None and (payload := mode.bid(exact)) is not None:
            return _checked(mode, payload, exact)
    return None


def _groups(tasks: Sequence[Task], found: Sequence[bytes | None]) -> list[list[int]]:
    """Return the numbers of chunks that keep the target together: as many as memory should hold, of like sizes."""
    left = [number for number, coded in enumerate(found) if coded is None]
    sizes = {number: tasks[number].split[0].size for number in left}
    largest = max(sizes.values(), default=0)
    alike = [number for number in left if sizes[number] >= largest * _ALIKE]
    count = min(limits.MAX_SHARED, -(-sum(sizes[number] for number in alike) // _VALUES_TOGETHER))
    each = -(-len(alike) // max(1, count))
    return [alike[i : i + each] for i in range(0, len(alike), each or 1)]


def _bids(tasks: Sequence[Task], threads: int, passed: Callable[[], None]) -> tuple[list[tuple[bytes, float]], bytes]:
    """Return the frames of the smallest offer for some chunks together, the error of each, and what they share."""
    target = tasks[0].target.rmse
    for turn in (SEQUENCE, MODEL):
        asking = [(mode, mode.bids) for mode in MODES if mode.bids is not None and mode.turn == turn]
        offers = [(mode, offer) for mode, bids in asking if (offer := bids(tasks, threads, passed)) is not None]
        for mode, offer in sorted(offers, key=lambda o: o[1].size):
            context = Context.of(None, None, shared_of(offer.parameter) if offer.parameter else None)
            frames = [_measured(mode, *each, context) for each in zip(offer.payloads, tasks, strict=True)]
            kept = [f for f in frames if f is not None]
            if len(kept) < len(tasks) or target is None:
                continue
            if together([task.box for task in tasks], [error for _, error in kept]) <= target:
                return kept, offer.parameter
    return [], b""


def _measured(mode: Mode, payload: bytes, task: Task, context: Context) -> tuple[bytes, float] | None:
    """Return the frame of a payload and its error; None if readers refuse it, or raw values are as small."""
    like, around = task.chunk, task.split[1]
    if len(payload) >= like.nbytes:
        return None
    try:
        decoded = values_of(Frame(mode.number, like.dtype, like.shape, 0, memoryview(payload)), context)
    except CorruptChunkError:  # a limit of readers that the encoder did not foresee
        return None
    if not quality.odd_kept(task.values, decoded):
        return None
    error = quality.rmse(task.values, decoded, task.target, around.box, around.mask)
    return seal(mode, like, payload, decoded), error


def _rounds(task: Task) -> Iterator[tuple[Task, tuple[int, ...]]]:
    """Yield what is asked for, and whose turn it is; a round is for what those before it left without a frame."""
    exact = replace(task, target=Target(lossless=True))
    yield exact, (SIMPLE,)
    task.target.channel_scale(task.chunk.shape)  # names a scale of the wrong length
    if not task.target.lossless and task.chunk.dtype.kind != "b":
        yield task, (SEQUENCE,)
        yield task, (MODEL,)
        yield task, (FALLBACK,)
    yield exact, (MODEL, FALLBACK)


def _checked(mode: Mode, payload: bytes | memoryview, task: Task) -> bytes | None:
    """Return the frame of a bid if what readers make of it keeps the target, else None."""
    like, any_size = task.chunk, task.target.lossless or (task.options.strict and mode.network)
    if not any_size and len(payload) >= like.size * like.dtype.itemsize:
        return None
    try:
        decoded = values_of(Frame(mode.number, like.dtype, like.shape, 0, memoryview(payload)), task.context)
    except CorruptChunkError:  # a limit of readers that the encoder did not foresee
        return None
    around = None if task.target.rmse is None else task.split[1]
    if around is None:
        kept = quality.meets(task.values, decoded, task.target)
    else:
        kept = quality.meets(task.values, decoded, task.target, around.box, around.mask)
    return seal(mode, like, payload, decoded) if kept else None


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
    if chunk.dtype.kind == "b":
        chunk = np.asarray(chunk.view(np.uint8) != 0)  # other bytes than 0 and 1 are true, too
    if outline is None:
        return chunk, None
    mask = narrow(outline, chunk.shape)
    if mask.all():
        return chunk, None
    fortran = chunk.flags.f_contiguous and not chunk.flags.c_contiguous
    chunk = np.array(chunk, order="F" if fortran else "C")
    np.copyto(chunk, np.zeros((), chunk.dtype), where=~mask)
    return chunk, mask
