"""Images -> stores, several at once, so that one batch of networks spans them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from inrstore import limits
from inrstore.chunk.encode import encode_chunks
from inrstore.errors import DestinationExistsError, InrstoreError, StoreError, WriteError
from inrstore.options import EncodeOptions, Progress, available_cores
from inrstore.sources import Source
from inrstore.store.conversion import Conversion, Wish, report_of
from inrstore.store.reader import Store
from inrstore.store.reports import Clock, ConvertReport, JobCallback
from inrstore.store.writer import sweep_published

__all__ = ["Wish", "convert_image", "convert_images", "report_of"]


def convert_image(source: Source, destination: str, wish: Wish, progress: JobCallback | None = None) -> ConvertReport:
    """Convert one image to a store; see `convert_images`.

    Raises
    ------
    InrstoreError
        What `convert_images` would return.
    """
    (result,) = convert_images([(source, destination)], [wish], progress)
    if isinstance(result, InrstoreError):
        raise result
    return result


def convert_images(
    images: Sequence[tuple[Source, str]], wishes: Sequence[Wish], progress: JobCallback | None = None
) -> list[ConvertReport | InrstoreError]:
    """Convert images to stores, fitting the networks of all in common batches.

    A store appears under its name only when it is complete, on the disk, decoded again and found to keep its
    promise. What is finished survives a crash, a full disk or an interruption: the same call goes on from
    there. After any other error nothing of that image is left, and the others go on.

    Parameters
    ----------
    images : sequence of (Source, str)
        Each with the path or URL of its store.
    wishes : sequence of Wish
        One for each; all with the same `options`.
    progress : callable, optional
        Called with a `JobProgress` now and then.

    Returns
    -------
    list of ConvertReport or InrstoreError
        In the order of the images.
    """
    results: dict[int, ConvertReport | InrstoreError] = {}
    running: dict[int, Conversion] = {}
    clock = Clock(progress, 0, 0)
    try:
        for number, ((source, destination), wish) in enumerate(zip(images, wishes, strict=True)):
            try:
                running[number] = Conversion(source, destination, wish)
            except DestinationExistsError as error:
                results[number] = _published(source, destination, wish) or error
            except InrstoreError as error:
                results[number] = error
        clock.add(sum(len(c.grid) for c in running.values()), sum(c.source.voxels.nbytes for c in running.values()))
        try:
            _encode(list(running.values()), clock)
        except InrstoreError as error:
            if len(running) == 1:
                results |= {number: error for number in running}
                _give_up(running, error)
            else:
                # Whose chunk it was is found out by converting one at a time.
                _release(running)
                for number, (source, destination) in ((n, images[n]) for n in list(running)):
                    results[number] = convert_images([(source, destination)], [wishes[number]], progress)[0]
                running.clear()
        for number in list(running):
            try:
                results[number] = running[number].finish(clock)
                del running[number]
            except InrstoreError as error:
                results[number] = error
                _give_up({number: running.pop(number)}, error)
    finally:
        _release(running)
    return [results[number] for number in range(len(images))]


def _release(running: dict[int, Conversion]) -> None:
    for conversion in running.values():
        conversion.partial.close()


def _give_up(running: dict[int, Conversion], error: InrstoreError) -> None:
    """Keep what is finished when writing failed, which may succeed later; remove it otherwise."""
    for conversion in running.values():
        if isinstance(error, WriteError):
            conversion.partial.close()
        else:
            conversion.partial.discard()
    running.clear()


def _encode(conversions: Sequence[Conversion], clock: Clock) -> None:
    """Encode every chunk that is not finished yet, some at a time; each is on the disk when it is counted."""
    pending = [(conversion, index) for conversion in conversions for index in conversion.pending]
    total = sum(len(conversion.grid) for conversion in conversions)
    done = total - len(pending)
    clock.tell("encoding", done)
    if not pending:
        return
    options = conversions[0].wish.options
    for batch in _batches(pending, options):

        def show(step: Progress, done: int = done, size: int = len(batch)) -> None:
            nominal = batch[0][0].nominal  # noqa: B023 - called while this batch runs
            current = None if nominal is None or not step.rmse else nominal - 20 * math.log10(step.rmse)
            clock.tell(step.stage, done + step.chunks_done, (done + size * step.fraction) / total, current)

        cuts = [conversion.cut(index) for conversion, index in batch]
        targets = [conversion.targets[index] for conversion, index in batch]
        chunks, insides = [chunk for chunk, _ in cuts], [inside for _, inside in cuts]
        frames = encode_chunks(chunks, targets, options, show if clock.wanted else None, insides)
        for (conversion, index), frame in zip(batch, frames, strict=True):
            conversion.partial.write_chunk(conversion.key(index), frame)
        done += len(batch)


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


def _published(source: Source, destination: str, wish: Wish) -> ConvertReport | None:
    """Return the report of a store that this very job published just before it died, and tidy up; else None."""
    if not sweep_published(destination):
        return None
    try:
        store = Store(destination)
        same = store.attributes["source"]["sha256"] == source.sha256 and store.promised == wish.promise.to_dict()
        return report_of(store) if same else None
    except StoreError:
        return None
