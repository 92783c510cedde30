"""One image -> one store: given by itself, or as the only one in a folder or a zip."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from inrstore import files
from inrstore.archive.plan import Plan
from inrstore.archive.prepare import Request, absolute, check_apart, nature
from inrstore.archive.rules import Rules, mask_beside
from inrstore.archive.work import has_label_intent
from inrstore.errors import ConfigurationError, SourceError
from inrstore.files import Place
from inrstore.files.zips import ZipPlace
from inrstore.sources import is_image, read_image
from inrstore.sources.dicom import converted
from inrstore.store.convert import Wish, convert_image
from inrstore.store.partial import PARTIAL, refuse_existing
from inrstore.store.reports import ConvertReport, JobCallback


def convert_file(source: str, destination: str, request: Request, progress: JobCallback | None) -> ConvertReport:
    """Convert an image file to a store.

    Parameters
    ----------
    source, destination : str
        Paths or URLs.
    request : Request
        Of its rules the one for an image of this name holds.
    progress : callable or None

    Raises
    ------
    InrstoreError
    """
    for beside in (destination, f"{destination}{PARTIAL}"):
        check_apart(absolute(source), absolute(beside))
    rules = _begin(destination, request)
    return _convert(*files.split(source), destination, rules, request.asked, progress)


def convert_only(source: str, destination: str, request: Request, progress: JobCallback | None) -> ConvertReport:
    """Convert the only image of a folder or zip to a store.

    Parameters
    ----------
    source, destination : str
        Paths or URLs.
    request : Request
    progress : callable or None

    Raises
    ------
    SourceError
        If there is none or more than one.
    InrstoreError
    """
    check_apart(absolute(source), absolute(destination))
    rules = _begin(destination, request)
    selection = request.read()[1]
    source = absolute(source)
    with ExitStack() as stack:
        if nature(source) == "zip":
            place: Place = stack.enter_context(ZipPlace(*files.split(source)))
            plan = stack.enter_context(Plan(place, "zip", rules, selection))
        else:
            place = files.place(source)
            plan = stack.enter_context(Plan(place, "tree", rules, selection))
        found: list[tuple[Place, str]] = []
        for item in plan:
            if item.kind == "zip" or item.problem:
                raise SourceError(f"{source}: {item.key}: {item.problem or 'a zip'}; convert it to an archive instead")
            if item.kind == "image":
                found.append((place, item.key))
            elif item.kind == "dicom" and len(found) < 2:
                made = stack.enter_context(converted(place, item.key))
                found += [(made, entry.key) for entry in made.walk() if is_image(entry.key)]
            if len(found) > 1:
                raise SourceError(f"{source}: more than one image: only an archive can hold them, not a .zarr")
        if not found:
            raise SourceError(f"{source}: holds no image")
        return _convert(*found[0], destination, rules, request.asked, progress)


def _begin(destination: str, request: Request) -> Rules:
    # A store that is there is refused before the image is read; beside one that was just published there is more to do.
    if not files.is_url(destination) and not Path(f"{destination}{PARTIAL}").exists():
        refuse_existing(Path(destination))
    return request.read()[0]


def _convert(
    place: Place, key: str, destination: str, rules: Rules, asked: bool, progress: JobCallback | None
) -> ConvertReport:
    image = read_image(place, key)
    choice = rules.choose(image.name)
    if choice.keep:
        raise ConfigurationError(f"{image.label}: a rule keeps it as a file, and a store was asked for")
    # Who names a quality for this one image means it, whatever the image is called.
    wish = choice.wish if choice.named or not asked else rules.base
    if not choice.named and not asked and has_label_intent(image.header):
        wish = choice.for_labels().wish
    return convert_image(image, destination, _with_mask(place, key, wish), progress)


def _with_mask(place: Place, key: str, wish: Wish) -> Wish:
    mask = mask_beside(key, wish.mask)
    if mask is None:
        return wish
    if place.size(mask) is None or isinstance(place, ZipPlace):
        raise SourceError(f"{place.label(mask)}: no such mask; give the path of one")
    return replace(wish, mask=place.label(mask))
