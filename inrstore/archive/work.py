"""Items -> outcomes: what one worker does. It keeps no state, and whatever is wrong with an item becomes an outcome.

Zips and folders of DICOM files are taken apart here; a zip is read member by member, never extracted. Images of several
items can be fitted together, so that one batch of networks spans subjects.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from inrstore import files
from inrstore.archive.copies import DESCRIPTION, IGNORE, copy, copy_of_dataset, write
from inrstore.archive.outcomes import Outcome, reason
from inrstore.archive.plan import Item, Job, Plan, doubtful
from inrstore.archive.record import WORK, archive_place
from inrstore.archive.report import picture_key, picture_of
from inrstore.archive.rules import Choice, Rules, mask_beside
from inrstore.archive.stamps import choice_of, stamp_of
from inrstore.archive.zips import ZipContents, record_key
from inrstore.errors import InrstoreError, SourceError, StoreError, UnsupportedImageError
from inrstore.files import Entry, Place, WritablePlace, blocks
from inrstore.files.durable import PREFIX
from inrstore.files.zips import ZipPlace
from inrstore.sources import Source, image_files, image_of, is_image, read_image, store_name
from inrstore.sources.dicom import converted, is_dicom_file
from inrstore.store import layout, manifest
from inrstore.store.container import ENDING, is_zip
from inrstore.store.conversion import report_of
from inrstore.store.convert import convert_images
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reader import Store
from inrstore.store.reports import JobProgress
from inrstore.store.verify import verify_store

Tell: TypeAlias = Callable[[str, JobProgress], None]
"""Called with the key of an image and where its conversion stands."""

MOST_VOXELS = 1 << 33
"""Bytes of voxels that wait to be fitted together."""


def run_item(job: Job, item: Item, tell: Tell | None = None) -> list[Outcome]:
    """Do one item; see `run_items`."""
    return run_items(job, [item], tell)[0]


def run_items(job: Job, items: Sequence[Item], tell: Tell | None = None) -> list[list[Outcome]]:
    """Do items. Input that is wrong is never an exception but a failed outcome.

    Parameters
    ----------
    job : Job
    items : sequence of Item
        Their images are fitted together, `job.batch` at a time.
    tell : callable, optional

    Returns
    -------
    list of list of Outcome
        For each item, in the order of its files.
    """
    worker = _Worker(job, tell)
    parts = [_Part(item) for item in items]
    for part in parts:
        worker.do(part)
    worker.convert()
    for part in parts:
        worker.finish(part)
    return [[outcome for outcome in part.outcomes if outcome is not None] for part in parts]


@dataclass
class _Part:
    """An item that is being done. An outcome that is not known yet is None."""

    item: Item
    outcomes: list[Outcome | None] = field(default_factory=list)
    zip: ZipContents | None = None
    stamp: str = ""

    def reserve(self, settings: str = "") -> Callable[[Outcome], None]:
        """Return what takes the outcome whose turn it is now."""
        place = len(self.outcomes)
        self.outcomes.append(None)

        def put(outcome: Outcome) -> None:
            self.outcomes[place] = replace(outcome, stamp=self.stamp, settings=settings)

        return put


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """An image that was read and waits to be converted."""

    key: str
    out: str
    source: Source
    options: Options
    note: str
    kept_mask: str
    replaces: str
    put: Callable[[Outcome], None]


class _Worker:
    def __init__(self, job: Job, tell: Tell | None) -> None:
        self.job, self.tell = job, tell
        self.source: Place = files.place(job.source)
        self.target: WritablePlace = archive_place(job.destination)
        self.work = "" if files.is_url(job.destination) else f"{job.destination}/{WORK}"
        self.waiting: list[_Waiting] = []

    # ---- items

    def do(self, part: _Part) -> None:
        item = part.item
        with suppress(OSError, InrstoreError):  # what cannot be looked at cannot be read, and says so then
            part.stamp = stamp_of(self.source, item, self.job.rules)
        if item.problem:
            part.reserve()(Outcome.failed(item.kind, item.key, item.out, SourceError(f"{item.key}: {item.problem}")))
            return
        try:
            if item.kind == "zip":
                self._zip(part)
            elif item.kind == "dicom":
                self._dicom(part)
            else:
                self._file(part, self.source, item)
        except Exception as error:
            part.reserve()(Outcome.failed(item.kind, item.key, item.out, error))

    def _file(self, part: _Part, place: Place, item: Item, prefix: str = "", bulk: str = "") -> None:
        """Copy a file, or read an image that is to be converted."""
        if item.out in part.item.removed:
            return
        choice = choice_of(self.job.rules, item, bulk) if item.kind == "image" else None
        put = part.reserve("" if choice is None else choice.settings)
        key = prefix + item.key
        began = time.perf_counter()
        try:
            if item.problem:
                raise SourceError(f"{key}: {item.problem}")
            if item.kind == "copy" and self.job.kind == "bids" and key == item.out in (DESCRIPTION, IGNORE):
                container = self.job.rules.base.container
                first, *kept = copy_of_dataset(place, key, self.target, self.job.name, container)
                put(first)
                for outcome in kept:
                    part.reserve()(outcome)
            elif item.kind == "copy":
                put(copy(place, item.key, self.target, item.out, key, part.item.known.get(item.out, ("",))[0]))
            else:
                assert choice is not None
                self._image(part, place, item, key, choice, put)
        except UnsupportedImageError as error:
            self._keep(part, place, item, key, error, put, "" if choice is None else choice.settings)
        except Exception as error:
            put(Outcome.failed(item.kind, key, item.out, error, size=item.size, seconds=time.perf_counter() - began))

    def _keep(
        self, part: _Part, place: Place, item: Item, key: str, why: Exception, put: Callable[[Outcome], None],
        settings: str,
    ) -> None:  # fmt: skip
        """Copy the files of an image that a store cannot hold."""
        if self.job.rules.base.strip:
            text = f"{why}; as a file it would keep what was to be taken out; a rule can keep it, or exclude it"
            put(Outcome.failed("image", key, item.out, SourceError(text), size=item.size))
            return
        folder = item.out.rpartition("/")[0]
        prefix = key.removesuffix(item.key)
        for number, file in enumerate(image_files(place, item.key)):
            name = file.rpartition("/")[2]
            out = f"{folder}/{name}" if folder else name
            try:
                known = part.item.known.get(out, ("",))[0]
                outcome = copy(place, file, self.target, out, prefix + file, known)
                outcome = replace(outcome, kind="image", note=reason(why))
            except Exception as error:
                outcome = Outcome.failed("image", prefix + file, out, error)
            (part.reserve(settings) if number else put)(outcome)

    # ---- images

    def _image(
        self, part: _Part, place: Place, item: Item, key: str, choice: Choice, put: Callable[[Outcome], None]
    ) -> None:
        done, replaces = self._done(place, item, key, choice, part.item.known.get(item.out))
        if done is not None:
            put(done)
            return
        source = read_image(place, item.key)
        if not choice.named and source.labels:
            choice = choice.for_labels()
        if self.waiting and self.waiting[0].options.effort != choice.options.effort:
            self.convert()  # before the copy of the mask is made, which it may remove
        options, note, kept = self._masked(place, item.key, choice.options)
        self._queue(_Waiting(key=key, out=item.out, source=source, options=options, note=note, kept_mask=kept,
                             replaces=replaces, put=put))  # fmt: skip

    def _done(
        self, place: Place, item: Item, key: str, choice: Choice, known: tuple[str, str] | None
    ) -> tuple[Outcome | None, str]:
        """Return the outcome of an image whose store is there already; or None, and the seal of one to be replaced."""
        began = time.perf_counter()
        where = self._path(item.out)
        if not self._is_there(item.out):
            return None, ""
        store = Store(where)
        why = self._differs(store, place, item, choice)
        if not why and known is not None and known[1] not in ("", choice.settings):
            why = "made with other settings"
        if not why:
            verify_store(store, fast=True)
            outcome = Outcome.converted(key, item.out, item.size, report_of(store))
            return replace(outcome, resumed=True, seconds=time.perf_counter() - began), ""
        if known is None:
            raise StoreError(f"{where}: is there already, {why}; `inrstore update` replaces it")
        if store.seal != known[0]:
            raise StoreError(f"{where}: is there already, {why}, and is not the store that this archive made")
        return None, store.seal

    def _differs(self, store: Store, place: Place, item: Item, choice: Choice) -> str:
        """Return why a store is not what the source would become now; "" if it is."""
        if item.size and store.attributes["source"].get("bytes") != item.size:
            return "made from a file of another size: the source was changed"
        sha256 = hashlib.sha256()
        for name in image_files(place, item.key):
            with place.open(name) as file:
                for block in blocks(file):
                    sha256.update(block)
        if store.attributes["source"].get("sha256") != sha256.hexdigest():
            return "made from another file: the source was changed"
        labels = not choice.named and store.promised == Quality(lossless=True).to_dict()
        if not choice.options.quality.made(store.measured) and not labels:
            return f"with another quality: {store.promised}"
        return ""

    def _is_there(self, out: str) -> bool:
        """Return whether the archive has a store; one that lacks its first document is no store."""
        keys = [out] if is_zip(out) else [f"{out}/{layout.root_key(number)}" for number in (3, 2)]
        return any(self.target.size(key) is not None for key in keys)

    def _masked(self, place: Place, key: str, options: Options) -> tuple[Options, str, str]:
        """Return the options with the mask's path or URL, what is to be noted, and a copy of the mask to be removed."""
        mask = mask_beside(key, options.mask)
        if mask is None:
            return options, "", ""
        if mask == key:
            return replace(options, mask=""), "", ""
        if place.size(mask) is None:
            return replace(options, mask=""), f"no mask: there is no {mask}", ""
        if not isinstance(place, ZipPlace):
            return replace(options, mask=place.label(mask)), "", ""
        own = hashlib.sha256(place.label(mask).encode()).hexdigest()[:16]
        copy = f"{WORK}/{PREFIX}{own}-{mask.rpartition('/')[2]}"
        with place.open(mask) as file:
            self.target.write_blocks(copy, blocks(file))
        return replace(options, mask=self._path(copy)), "", copy

    def _path(self, out: str) -> str:
        """Return the path or URL of something in the archive."""
        return f"{self.target.name.rstrip('/')}/{out}"

    def _queue(self, image: _Waiting) -> None:
        """Let an image wait for others to be fitted with."""
        self.waiting.append(image)
        size = sum(math.prod(other.source.voxels.shape) * other.source.voxels.itemsize for other in self.waiting)
        if len(self.waiting) >= self.job.batch or size > MOST_VOXELS:
            self.convert()

    def convert(self) -> None:
        """Convert the images that wait."""
        images, self.waiting = self.waiting, []
        if not images:
            return
        began = time.perf_counter()
        name = images[0].key if len(images) == 1 else f"{images[0].key} and {len(images) - 1} more"
        tell = self.tell
        progress = None if tell is None else (lambda step: tell(name, step))
        try:
            pairs = [(image.source, self._path(image.out)) for image in images]
            options, old = [image.options for image in images], [image.replaces for image in images]
            results = convert_images(pairs, options, progress, self.work, old)
        except Exception as error:
            for image in images:
                image.put(Outcome.failed("image", image.key, image.out, error, size=image.source.file_bytes))
            return
        seconds = (time.perf_counter() - began) / len(images)
        for image, result in zip(images, results, strict=True):
            if isinstance(result, InrstoreError):
                image.put(Outcome.failed("image", image.key, image.out, result, image.source.file_bytes, seconds))
                continue
            outcome = Outcome.converted(image.key, image.out, image.source.file_bytes, result, image.note)
            image.put(replace(outcome, seconds=seconds))
            try:
                if image.kept_mask:
                    self.target.remove(image.kept_mask)
                if self.job.pictures:
                    picture = picture_of(Store(self._path(image.out)), image.source)
                    self.target.write(picture_key(image.out), picture)
            except Exception as error:  # the image is safe, and the report shows a row without its picture
                image.put(replace(outcome, seconds=seconds, note=f"no picture: {reason(error)}"))

    # ---- zips and DICOM

    def _zip(self, part: _Part) -> None:
        item = part.item
        bulk = item.key.rpartition("/")[2]
        job = self.job
        with (
            ZipPlace(self.source, item.key) as inside,
            Plan(inside, "zip", job.rules, base=item.out, bulk=bulk) as plan,
        ):
            images: dict[str, str] = {}
            for member in plan:
                self._file(part, inside, member, prefix=f"{item.key}:", bulk=bulk)
                if member.kind == "image":
                    images |= dict.fromkeys(image_files(inside, member.key), member.key)
            if plan.items or next(inside.walk(), None) is None:
                part.zip = ZipContents(inside.comment, inside.members(), images)

    def finish(self, part: _Part) -> None:
        """Write the record of a zip whose members are all in the archive."""
        outcomes = [outcome for outcome in part.outcomes if outcome is not None]
        if part.zip is None or any(outcome.status == "failed" for outcome in outcomes):
            return
        item, out = part.item, record_key(part.item.key)
        try:
            data = part.zip.record(item.key, outcomes)
            resumed = write(self.target, out, data)
            part.reserve(self.job.rules.settings)(
                Outcome(kind="zip", key=item.key, out=out, status="copied", stored_bytes=len(data),
                        digest=manifest.digest(data), resumed=resumed)
            )  # fmt: skip
        except Exception as error:
            part.reserve()(Outcome.failed("zip", item.key, out, error))

    def _dicom(self, part: _Part) -> None:
        item = part.item
        chosen = cast(Place, _Chosen(self.source, self.job.rules))
        others = _not_dicom(chosen, item.key)
        above = f"{item.out}/" if item.out else ""
        with ExitStack() as stack:
            made = stack.enter_context(converted(chosen, item.key))
            for entry in made.walk():
                image = is_image(entry.key)
                out = above + (store_name(entry.key, ENDING[self.job.rules.base.container]) if image else entry.key)
                one = Item(kind="image" if image else "copy", key=entry.key, out=out, size=entry.size)
                self._file(part, made, one, prefix=f"{item.key}/" if item.key else "")
            self.convert()  # while the images are there to be read
        for key in others:
            self._file(part, self.source, Item(kind="copy", key=key, out=above + key.rpartition("/")[2]))


class _Chosen:
    """A place without the files that the rules do not take."""

    def __init__(self, place: Place, rules: Rules) -> None:
        self.name, self.label, self.open, self.stamp = place.name, place.label, place.open, place.stamp
        self._place, self._rules = place, rules

    def size(self, key: str) -> int | None:
        return self._place.size(key) if self._rules.takes(key) else None

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        return (entry for entry in self._place.walk(prefix) if self._rules.takes(entry.key))


def _not_dicom(place: Place, folder: str) -> list[str]:
    """Return the files of a folder that the plan took for DICOM images by their names, and that are none."""
    above = len(folder) + 1 if folder else 0
    own = [entry.key for entry in place.walk(folder) if "/" not in entry.key[above:] and not entry.problem]
    others = doubtful(place, [key for key in own if image_of(place, key) is None])
    return [key for key in sorted(others) if not is_dicom_file(place, key)]
