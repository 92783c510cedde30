"""Images -> stores, several at once, so that one batch of networks spans them all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from inrstore import limits
from inrstore.chunk.encode import encode_chunks, encode_naming, encode_together
from inrstore.chunk.shared import of as shared_of
from inrstore.errors import InrstoreError, NotHeldError, QualityError
from inrstore.options import EncodeOptions, Progress, ProgressCallback, available_cores
from inrstore.sources import Source
from inrstore.store import preserve
from inrstore.store.container import refuse_existing
from inrstore.store.conversion import Conversion
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reports import Clock, ConvertReport, JobCallback


def convert_image(
    source: Source, destination: str, options: Options, progress: JobCallback | None = None, replaces: str = ""
) -> ConvertReport:
    """Convert one image to a store; see `convert_images`.

    Raises
    ------
    InrstoreError
        What `convert_images` would return.
    """
    (result,) = convert_images([(source, destination)], [options], progress, replaces=[replaces])
    if isinstance(result, InrstoreError):
        raise result
    return result


def convert_images(
    images: Sequence[tuple[Source, str]],
    options: Sequence[Options],
    progress: JobCallback | None = None,
    work: str = "",
    replaces: Sequence[str] = (),
) -> list[ConvertReport | InrstoreError]:
    """Convert images to stores, fitting the networks of all in common batches.

    A store appears under its name only when it is complete, on the disk, decoded again and found to keep its promise.
    After an error nothing of that image is left, and the others go on.

    Parameters
    ----------
    images : sequence of (Source, str)
        Each with the path or URL of its store.
    options : sequence of Options
        One for each; all of the same `effort`.
    progress : callable, optional
        Called with a `JobProgress` now and then.
    work : str
        Folder for what is unfinished, on the file system of the stores; beside each store if it is empty.
    replaces : sequence of str, optional
        For each image the seal of the store that the new one replaces, or "".

    Returns
    -------
    list of ConvertReport or InrstoreError
        In the order of the images.
    """
    results: dict[int, ConvertReport | InrstoreError] = {}
    running: dict[int, Conversion] = {}
    clock = Clock(progress, 0, 0)
    old = replaces or [""] * len(images)
    ready: dict[int, Conversion] = {}
    for number, ((source, destination), wanted, seal) in enumerate(zip(images, options, old, strict=True)):
        try:
            if wanted.quality.preserve is not None:
                ready[number] = _preserving(source, destination, wanted, work, seal, clock)
                continue
            running[number] = Conversion(source, destination, wanted, work, seal)
        except InrstoreError as error:
            results[number] = error
    clock.add(sum(len(c.grid) for c in running.values()), sum(c.source.voxels.nbytes for c in running.values()))
    try:
        _encode_until_kept(list(running.values()), clock)
    except InrstoreError as error:
        if len(running) == 1 and not ready:
            return [results.get(number, error) for number in range(len(images))]
        # Whose chunk it was is found out by converting one at a time.
        for number in running:
            results[number] = convert_images([images[number]], [options[number]], progress, work, [old[number]])[0]
        running.clear()
    running |= ready
    for number in list(running):
        try:
            results[number] = running.pop(number).finish(clock)
        except InrstoreError as error:
            results[number] = error
    return [results[number] for number in range(len(images))]


def _encode_until_kept(conversions: Sequence[Conversion], clock: Clock) -> None:
    """Encode every chunk, again where a measurement is further off than its noise allows."""
    left = conversions
    while left:
        _encode(left, clock)
        left = [conversion for conversion in left if conversion.refine()]


def _preserving(source: Source, destination: str, options: Options, work: str, seal: str, clock: Clock) -> Conversion:
    """Return an encoded image of the coarsest quality that keeps a measure within its bound."""
    if not seal:
        refuse_existing(destination)

    numbers = itertools.count(1)

    def attempt(quality: Quality, before: Conversion | None) -> Conversion:
        clock.prefix = f"try {next(numbers)}: "
        shares = None if before is None else before.shares
        conversion = Conversion(source, destination, replace(options, quality=quality), work, seal, shares)
        clock.add(len(conversion.grid), source.voxels.nbytes)
        _encode_until_kept([conversion], clock)
        return conversion

    asked = options.quality.preserve
    assert asked is not None
    try:
        found = preserve.search(source, options, attempt)
    finally:
        clock.prefix = ""
    conversion: Conversion = found.trial
    conversion.preserved = {"measure": asked.measure, "bound": asked.bound, "found": float(f"{found.figure:.5g}")}
    return conversion


def _encode(conversions: Sequence[Conversion], clock: Clock) -> None:
    """Encode every chunk: those of an image that keep its quality together, the others some at a time."""
    clock.tell("encoding", 0)
    total, done = sum(len(conversion.grid) for conversion in conversions), 0
    groups = [(conversion, indices) for conversion in conversions for indices in conversion.together()]
    for conversion, indices in groups:
        cuts = [conversion.cut(index) for index in indices]
        chunks, insides = [chunk for chunk, _ in cuts], [inside for _, inside in cuts]
        show = _show([(conversion, index) for index in indices], clock, done, total)
        target = conversion.targets[indices[0]]
        with _named([(conversion, index) for index in indices]):
            conversion.take(indices, encode_together(chunks, target, conversion.options, show, insides))
        done += len(indices)
    alone = [conversion for conversion in conversions if not conversion.frames]
    pending = [(conversion, index) for conversion in alone for index in conversion.grid]
    for batch in _batches(pending, conversions[0].options) if pending else ():
        cuts = [conversion.cut(index) for conversion, index in batch]
        targets = [conversion.targets[index] for conversion, index in batch]
        chunks, insides = [chunk for chunk, _ in cuts], [inside for _, inside in cuts]
        show = _show(batch, clock, done, total)
        with _named(batch):
            frames = encode_chunks(chunks, targets, _logging(batch), show, insides)
        for (conversion, index), frame in zip(batch, frames, strict=True):
            conversion.frames[index] = frame
        done += len(batch)
    for conversion in conversions:
        if conversion.options.shared and conversion.options.quality.lossless:
            _name_shared(conversion, clock)


def _name_shared(conversion: Conversion, clock: Clock) -> None:
    """Let chunks of a lossless image name a shared network, where that saves more than the network takes."""
    shared, named = shared_of(*conversion.options.shared), dict[tuple[int, ...], bytes]()
    indices = list(conversion.grid)
    for batch in _batches([(conversion, index) for index in indices], conversion.options):
        cuts = [conversion.cut(index) for _, index in batch]
        chunks, insides = [chunk for chunk, _ in cuts], [inside for _, inside in cuts]
        made = encode_naming(shared, chunks, conversion.options, insides)
        named |= {index: frame for (_, index), frame in zip(batch, made, strict=True) if frame is not None}
        clock.tell("trying shared networks", len(named), 1.0)
    conversion.name(shared, named)


@contextmanager
def _named(batch: Sequence[tuple[Conversion, tuple[int, ...]]]) -> Iterator[None]:
    """Let an error name the image and the chunk."""
    try:
        yield
    except NotHeldError as error:
        conversion, index = batch[error.chunk]
        where = f"{conversion.source.label}: {conversion.key(index)}"
        raise QualityError(f"{where}: {error.reason}; nothing was written") from error


def _logging(batch: Sequence[tuple[Conversion, tuple[int, ...]]]) -> EncodeOptions:
    """Return the options of some chunks, whose fits are logged by their places in the image."""
    options = batch[0][0].options
    log = options.log_fit
    if log is None:
        return options
    places = [list(conversion.grid).index(index) for conversion, index in batch]
    return replace(options, log_fit=lambda step: log(replace(step, chunk=places[step.chunk])))


def _show(
    batch: Sequence[tuple[Conversion, tuple[int, ...]]], clock: Clock, done: int, total: int
) -> ProgressCallback | None:
    """Return what tells the progress of some chunks, or None where nobody listens."""
    nominal = batch[0][0].nominal

    def show(step: Progress) -> None:
        current = None if nominal is None or not step.rmse else nominal - 20 * math.log10(step.rmse)
        clock.tell(step.stage, done + step.chunks_done, (done + len(batch) * step.fraction) / total, current)

    return show if clock.wanted else None


def _batches(
    pending: Sequence[tuple[Conversion, tuple[int, ...]]], options: EncodeOptions
) -> Iterator[list[tuple[Conversion, tuple[int, ...]]]]:
    """Group chunks: as many as cores on a CPU, where each has its own thread; on a GPU as many as memory holds."""
    most = limits.MAX_CHUNK_VALUES * 4 if options.device == "cuda" else 0
    least = options.threads or available_cores()
    batch: list[tuple[Conversion, tuple[int, ...]]] = []
    values = 0
    for conversion, index in pending:
        size = math.prod(conversion.grid.chunks)
        if batch and len(batch) >= least and values + size > most:
            yield batch
            batch, values = [], 0
        batch.append((conversion, index))
        values += size
    yield batch
