"""What tells at a look whether an item has to be done again: the sizes and times of its files, and what is asked."""

from __future__ import annotations

from inrstore.archive.plan import Item
from inrstore.archive.rules import Choice, Rules, mask_beside
from inrstore.files import Place
from inrstore.sources import image_files
from inrstore.store.manifest import digest


def choice_of(rules: Rules, item: Item, bulk: str = "") -> Choice:
    """Return what is done with an image, by its name alone.

    Parameters
    ----------
    rules : Rules
    item : Item
        Of kind "image".
    bulk : str
        Name of the zip it lies in, if it does.
    """
    own = item.key.rpartition("/")[2]
    folder = item.out.rpartition("/")[0]
    return rules.choose(f"{folder}/{own}" if folder else own, bulk)


def stamp_of(place: Place, item: Item, rules: Rules) -> str:
    """Return what changes when the files of an item do, "" if that cannot be told.

    Parameters
    ----------
    place : Place
        The source.
    item : Item
        An image with its mask, a file, a zip as a whole, or the files that lie in a folder of scans.
    rules : Rules

    Raises
    ------
    OSError
        If the source cannot be read.
    """
    if item.kind == "image":
        keys = list(image_files(place, item.key))
        mask = mask_beside(item.key, choice_of(rules, item).options.mask)
        stamps = [place.stamp(key) for key in keys]
        if mask is not None and mask != item.key:
            stamps.append(place.stamp(mask) or "no mask")
        return " ".join(stamps) if all(stamps) else ""
    if item.kind == "dicom":
        above = len(item.key) + 1 if item.key else 0
        own = [entry.key for entry in place.walk(item.key) if "/" not in entry.key[above:] and not entry.problem]
        return digest("\n".join(f"{key} {place.stamp(key)}" for key in own if rules.takes(key)).encode())
    return place.stamp(item.key)
