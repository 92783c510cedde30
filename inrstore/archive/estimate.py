"""A job -> what it would do, image by image, and about how large and how long: a few chunks are encoded to tell.

Images of one rule and suffix are taken to be alike: of each such group the chunks of some are encoded, and the others
follow by the sizes of their files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from inrstore.archive.plan import Item, Job, Plan, Planned
from inrstore.archive.rules import Choice, mask_beside, suffix_of
from inrstore.archive.stamps import choice_of
from inrstore.chunk.decode import describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.errors import InrstoreError, UnsupportedImageError
from inrstore.files import Place
from inrstore.files.zips import ZipPlace
from inrstore.sources import read_image
from inrstore.store import preserve
from inrstore.store.conversion import Conversion

SAMPLES = 2
"""Images of a group that are looked at."""
SAMPLE_VALUES = 1 << 21
"""Voxels that are encoded of each."""
METADATA_BYTES = 5000
"""What a store takes beside its chunks, about."""


@dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """What would become of an image.

    Parameters
    ----------
    path : str
        In the archive, by its name in the source; of a folder of scans the folder.
    rule : str
        The rule that counts, "" for none.
    quality : dict
        What would be promised; empty if it is only known when the image is read, or kept as a file.
    preset : str
        Effort.
    codec : str
        What its chunks would be, by a look at some of its group; "file" if it is copied.
    source_bytes : int
        Of its files.
    stored_bytes : int or None
        Of its store, about; None if it cannot be told.
    seconds : float or None
        To convert it here, about.
    sampled : bool
        Whether it is one of those that were looked at.
    note : str
        Why it would fail, or would be copied.
    default : dict
        If no quality is asked for, where it comes from, as in `StoreReport`; empty of images that were not looked at.
    """

    path: str
    rule: str
    quality: dict[str, Any]
    preset: str
    codec: str
    source_bytes: int
    stored_bytes: int | None
    seconds: float | None
    sampled: bool = False
    note: str = ""
    default: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """What a job would do; nothing was written.

    Parameters
    ----------
    source : str
        Path or URL.
    images : tuple of PlannedImage
    copied : int
        Other files, that would be copied.
    copied_bytes : int
        Their size.
    source_bytes, stored_bytes : int
        Of all images, and about of their stores and the copies.
    seconds : float
        To convert them here, one after the other, about.
    """

    source: str
    images: tuple[PlannedImage, ...]
    copied: int
    copied_bytes: int
    source_bytes: int
    stored_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass
class _Group:
    """Images that are taken to be alike, with what was found of some."""

    choice: Choice
    items: list[tuple[Item, str, str]] = field(default_factory=list)  # item, zip or "", path
    found: dict[str, tuple[float, float, str]] = field(default_factory=dict)  # path -> bytes, seconds, codec
    promises: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)  # path -> quality, why
    notes: dict[str, str] = field(default_factory=dict)


def estimate(job: Job, place: Place, plan: Planned, tell: Callable[[str], None] | None = None) -> ConvertPlan:
    """Return what a job would do.

    Parameters
    ----------
    job : Job
    place : Place
        Its source.
    plan : Planned
    tell : callable, optional
        Called with the name of each image before it is looked at.
    """
    groups: dict[tuple[str, str, str], _Group] = {}
    others: list[PlannedImage] = []
    copied = copied_bytes = 0
    for item, zipped in _items(job, place, plan):
        if item.kind == "copy":
            copied, copied_bytes = copied + 1, copied_bytes + item.size
        elif item.kind == "dicom":
            others.append(_unknown(job, item, "a folder of scans: known when dcm2niix has read it"))
        elif item.problem:
            others.append(_unknown(job, item, item.problem))
        else:
            bulk = zipped.rpartition("/")[2]
            choice = choice_of(job.rules, item, bulk)
            folder, slash, _ = item.out.rpartition("/")
            path = folder + slash + item.key.rpartition("/")[2]
            key = (choice.settings, choice.rule, suffix_of(path))
            groups.setdefault(key, _Group(choice)).items.append((item, zipped, path))
    images = list(others)
    for group in groups.values():
        _look(place, group, tell)
        images += _planned(group)
    known = [image for image in images if image.stored_bytes is not None]
    return ConvertPlan(
        source=place.name, images=tuple(sorted(images, key=lambda image: image.path)), copied=copied,
        copied_bytes=copied_bytes, source_bytes=sum(image.source_bytes for image in images),
        stored_bytes=copied_bytes + sum(image.stored_bytes or 0 for image in known),
        seconds=sum(image.seconds or 0.0 for image in known),
    )  # fmt: skip


def _items(job: Job, place: Place, plan: Planned) -> Iterator[tuple[Item, str]]:
    """Yield every image and file, each with the zip it lies in or ""."""
    for item in plan:
        if item.kind != "zip":
            yield item, ""
            continue
        bulk = item.key.rpartition("/")[2]
        try:
            with (
                ZipPlace(place, item.key) as inside,
                Plan(inside, "zip", job.rules, base=item.out, bulk=bulk) as members,
            ):
                for member in members:
                    yield member, item.key
        except InrstoreError as error:
            yield replace(item, problem=str(error)), ""


def _unknown(job: Job, item: Item, note: str) -> PlannedImage:
    return PlannedImage(path=item.out or item.key, rule="", quality={}, preset=job.rules.base.preset, codec="",
                        source_bytes=item.size, stored_bytes=None, seconds=None, note=note)  # fmt: skip


def _look(place: Place, group: _Group, tell: Callable[[str], None] | None) -> None:
    """Encode parts of some images of a group: of those in the middle by size."""
    ordered = sorted(group.items, key=lambda one: one[0].size)
    step = max(1, len(ordered) // (SAMPLES + 1))
    for item, zipped, path in ordered[step - 1 :: step][:SAMPLES] if len(ordered) > SAMPLES else ordered:
        if tell is not None:
            tell(path)
        try:
            with ExitStack() as stack:
                inside = stack.enter_context(ZipPlace(place, zipped)) if zipped else place
                group.found[path], group.promises[path] = _sample(inside, item.key, group.choice)
        except UnsupportedImageError as error:
            group.notes[path] = f"copied as it is: {error}"
        except (InrstoreError, OSError) as error:
            group.notes[path] = str(error)


def _sample(
    place: Place, key: str, choice: Choice
) -> tuple[tuple[float, float, str], tuple[dict[str, Any], dict[str, Any]]]:
    """Return about how many bytes and seconds an image takes, what its chunks become; what is promised, and why."""
    began = time.perf_counter()
    source = read_image(place, key)
    if not choice.named and source.labels:
        choice = choice.for_labels()
    options = choice.options
    mask = mask_beside(key, options.mask)
    if mask is not None:
        there = mask != key and place.size(mask) is not None and not isinstance(place, ZipPlace)
        options = replace(options, mask=place.label(mask) if there else "")
    conversion = Conversion(source, f"{key}.estimate.zarr", preserve.first(source, options))
    options = conversion.options  # with a default quality in place of none
    reading = time.perf_counter() - began
    indices = list(conversion.grid)
    index = indices[len(indices) // 2]
    values, inside = conversion.cut(index)
    part = _slab(values)
    mine = None if inside is None else np.ascontiguousarray(inside[..., part, :, :])
    crop = np.ascontiguousarray(values[..., part, :, :]) if values.ndim > 2 else values
    began = time.perf_counter()
    (frame,) = encode_chunks([crop], [conversion.targets[index]], options, None, [mine if values.ndim > 2 else inside])
    seconds = reading + (time.perf_counter() - began) * source.voxels.size / crop.size
    # Air costs next to nothing where it is 0, and there is more of it at the ends than in the middle.
    content = int(np.count_nonzero(source.voxels)) / max(1, int(np.count_nonzero(crop)))
    found = len(frame) * content + METADATA_BYTES, seconds, describe_chunk(frame).mode
    return found, (options.quality.to_dict(), conversion.default)


def _slab(values: Any) -> slice:
    """Return the slices in the middle of a chunk that have about as many voxels as are looked at."""
    if values.ndim < 3:
        return slice(None)
    depth = values.shape[-3]
    count = max(1, min(depth, SAMPLE_VALUES * depth // max(1, values.size)))
    start = (depth - count) // 2
    return slice(start, start + count)


def _planned(group: _Group) -> Iterator[PlannedImage]:
    sizes = {path: item.size for item, _, path in group.items}
    known = [(stored / max(1, sizes[path]), seconds / max(1, sizes[path]), codec)
             for path, (stored, seconds, codec) in group.found.items()]  # fmt: skip
    codecs = ", ".join(sorted({codec for _, _, codec in known}))
    own = group.choice.options
    for item, _, path in group.items:
        exact = group.found.get(path)
        stored = exact[0] if exact else item.size * _mean([one[0] for one in known]) if known else None
        seconds = exact[1] if exact else item.size * _mean([one[1] for one in known]) if known else None
        note = group.notes.get(path, "")
        quality, why = group.promises.get(path, ({}, {})) if own.quality.default else (own.quality.to_dict(), {})
        yield PlannedImage(
            path=path, rule=group.choice.rule, preset=own.preset,
            quality=quality, default=why,
            codec="" if note else exact[2] if exact else codecs, source_bytes=item.size,
            stored_bytes=None if stored is None or note else round(stored), seconds=None if note else seconds,
            sampled=exact is not None, note=note,
        )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
