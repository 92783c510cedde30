"""What a format of images is: the names of its files, how they are read, and what an export writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from inrstore.files import Place
from inrstore.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class Output:
    """A file of an export: what is around the voxels, and how they lie in it.

    Parameters
    ----------
    name : str
        Its name.
    plain : bytes
        Bytes at its very start, which are never gzipped.
    head, tail : bytes
        Bytes before and after the voxels.
    voxels : bool
        Whether it holds the voxels.
    axes : tuple of int
        Axes of `Source.voxels` in the order in which they lie in the file, slowest first; empty for their own order,
        in which x is fastest.
    packed : bool
        Whether all but `plain` is gzipped.
    """

    name: str
    plain: bytes = b""
    head: bytes = b""
    voxels: bool = True
    tail: bytes = b""
    axes: tuple[int, ...] = ()
    packed: bool = False


@dataclass(frozen=True, kw_only=True)
class Around:
    """The bytes around the voxels, as in `Source`; a store keeps them, and a format writes from nothing else."""

    kind: str
    header: bytes
    leading: bytes
    trailing: bytes


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of images.

    Parameters
    ----------
    kinds : tuple of str
        What `Source.kind` may be; no other format has the same.
    suffixes : tuple of tuple of str
        For each file of an image the endings it may have, in small letters, the usual one first. An image is known by
        the first file, and the others lie beside it under the same stem. Packed goes with packed, capitals with
        capitals, where there is a choice.
    sniff : callable
        start -> bool: whether a file whose name says nothing is one of these, by its first `SNIFFED` unpacked bytes.
    read : callable
        (place, files) -> Source. `files` are those that are there, the first one first; one that is missing is an
        error. Gradients are none of its business.
    named : bool
        Whether stores keep the ending in their names: x.mgz.ozx, beside the x.ozx of an x.nii.gz.
    write : callable
        (names, around) -> what an export writes: for each name the bytes around the voxels, as they were read.
    """

    kinds: tuple[str, ...]
    suffixes: tuple[tuple[str, ...], ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[Place, tuple[str, ...]], Source]
    write: Callable[[tuple[str, ...], Around], tuple[Output, ...]]
    named: bool = False

    def suffix(self, name: str) -> str:
        """Return the ending of a name as it is written there, or "" if it is none of this format's."""
        found = max((s for group in self.suffixes for s in group if name.lower().endswith(s)), key=len, default="")
        return name[len(name) - len(found) :]

    def plain(self, name: str) -> str:
        """Return what the first file of an image would be called if it were not gzipped: x.nii for x.nii.gz."""
        written = self.suffix(name)
        found = next((s for s in self.suffixes[0] if not is_packed(s)), "")
        if not found or not is_packed(written):
            return name
        return name[: len(name) - len(written)] + (found.upper() if written.isupper() else found)

    def names(self, name: str) -> tuple[str, ...]:
        """Return what the files of an image are called, given the name of one; nothing if it is none of this format."""
        return tuple(names[0] for names in self._choices(name))

    def files(self, place: Place, name: str) -> tuple[str, ...]:
        """Return the files of an image that are there, given the first, which is not looked for."""
        found = (_first(place, names) for names in list(self._choices(name))[1:])
        return (name, *(file for file in found if file is not None))

    def image_of(self, place: Place, name: str) -> str | None:
        """Return the first file of the image that a file belongs to; None if it belongs to none, or one is missing."""
        main = _first(place, next(self._choices(name), ()), known=name)
        if main is None:
            return None
        files = self.files(place, main)
        return main if len(files) == len(self.suffixes) and name in files else None

    def _choices(self, name: str) -> Iterator[tuple[str, ...]]:
        """Yield for each file of an image what it may be called, given the name of one; the likeliest first."""
        written = self.suffix(name)
        own, stem = written.lower(), name[: len(name) - len(written)]
        for group in self.suffixes if own else ():
            if own in group:
                yield (name,)
            else:
                likely = sorted(group, key=lambda suffix: is_packed(suffix) != is_packed(own))
                yield tuple(stem + (suffix.upper() if written.isupper() else suffix) for suffix in likely)


def is_packed(name: str) -> bool:
    """Return whether a name says that the file is gzipped: .nii.gz, .mgz."""
    return name.lower().endswith("gz")


def _first(place: Place, names: tuple[str, ...], known: str = "") -> str | None:
    return next((name for name in names if name == known or place.size(name) is not None), None)
