"""What a user asks for -> the rules it makes, and the job; one image becomes one store at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from inrstore import files
from inrstore.archive.changes import unmatched
from inrstore.archive.copies import DESCRIPTION
from inrstore.archive.plan import Job, Plan, Planned, SourceKind
from inrstore.archive.record import VERSION
from inrstore.archive.report import page_template
from inrstore.archive.rules import (
    QUALITIES,
    Rule,
    Rules,
    described,
    digests,
    mask_beside,
    matches,
    read_rules,
    suffix_of,
)  # fmt: skip
from inrstore.archive.stamps import choice_of
from inrstore.chunk.frame import VERSION as FORMAT_VERSION
from inrstore.errors import ConfigurationError, SourceError, StoreError
from inrstore.files import Place
from inrstore.files.names import check_name
from inrstore.files.pages import check_replaceable
from inrstore.files.zips import ZipPlace
from inrstore.options import Network
from inrstore.sources import is_image, read_image
from inrstore.sources.dicom import converted
from inrstore.store import manifest
from inrstore.store.container import refuse_existing
from inrstore.store.convert import convert_image
from inrstore.store.options import Options, chunks_of
from inrstore.store.preserve import require
from inrstore.store.quality import Quality
from inrstore.store.reports import ConvertReport, JobCallback

Nature: TypeAlias = Literal["file", "zip", "folder"]


def make_rules(options: Options, rules: str, include: Sequence[str], exclude: Sequence[str], *, asked: bool) -> Rules:
    """Return what is done with which file.

    Parameters
    ----------
    options : Options
        For all images that no rule speaks of.
    rules : str
        Path or URL of a rules file; empty for none.
    include, exclude : sequence of str
        Globs.
    asked : bool
        Whether a quality was named.

    Raises
    ------
    ConfigurationError, SourceError
        For globs and rules that are wrong; the message names them.
    """
    for name, globs in (("include", include), ("exclude", exclude)):
        if not all(isinstance(glob, str) and glob for glob in globs):
            raise ConfigurationError(f"{name} must be globs, not {globs!r}")
        for glob in globs:
            matches(glob, "")
    base = replace(options, mask=mask_path(options.mask))
    found = read_rules(rules, base, asked=asked) if rules else Rules(base=base, asked=asked)
    return replace(found, include=tuple(include), exclude=tuple(exclude))


def nature(source: str) -> Nature:
    """Return what a source is: a folder (or the prefix of a bucket), a zip, or another file.

    Raises
    ------
    SourceError
        If there is nothing.
    """
    place, key = files.split(source)
    if key and place.size(key) is not None:
        return "zip" if key.lower().endswith(".zip") else "file"
    if files.is_url(source):
        if next(iter(files.place(source).walk()), None) is None:
            raise SourceError(f"{source}: no such file or prefix")
        return "folder"
    if not os.path.isdir(source):
        raise SourceError(f"{source}: {'not a regular file' if os.path.lexists(source) else 'no such file'}")
    return "folder"


def make_job(source: str, destination: str, rules: Rules, *, batch: int = 1, pictures: bool = False) -> Job:
    """Return what is to be done with a source of many files.

    Parameters
    ----------
    source, destination : str
        Paths or URLs.
    rules : Rules
    batch : int
        Images that are fitted together.
    pictures : bool
        Whether a page with pictures is wanted.

    Raises
    ------
    SourceError, ConfigurationError
    """
    source, destination = absolute(source), absolute(destination)
    check_apart(source, destination)
    if rules.base.quality.preserve is not None:
        name = rules.base.quality.preserve.measure
        raise ConfigurationError(
            f'preserve {name}: not every image has it; say in a rule which, as [dwi] preserve = "{name}"'
        )
    for rule in rules.rules:
        if rule.quality is not None and rule.quality.preserve is not None:
            require(rule.quality.preserve.measure)
    if batch < 1:
        raise ConfigurationError(f"batch must be 1 or more, not {batch}")
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if not name.isprintable() and check_name(name) == "not valid Unicode":
        raise ConfigurationError(f"{source!r}: its name is not UTF-8")
    kind: SourceKind = "tree"
    if nature(source) == "zip":
        kind, source = "zip", files.split(source)[0].name
    elif files.place(source).size(DESCRIPTION) is not None:
        kind = "bids"
    return Job(
        source=source, destination=destination, kind=kind, name=name, rules=rules, pictures=pictures,
        batch=batch,
    )  # fmt: skip


def convert_single(source: str, destination: str, rules: Rules, progress: JobCallback | None) -> ConvertReport:
    """Convert an image file, or the only image of a folder or zip, to a store.

    Parameters
    ----------
    source, destination : str
        Paths or URLs.
    rules : Rules
        Of which that for an image of this name holds.
    progress : callable or None

    Raises
    ------
    SourceError
        If there is none or more than one.
    InrstoreError
    """
    check_apart(absolute(source), absolute(destination))
    refuse_existing(destination)  # before the image is read
    with ExitStack() as stack:
        kind = nature(source)
        place, key = files.split(source) if kind == "file" else _only_image(absolute(source), kind, rules, stack)
        image = read_image(place, key, sidecars=True)
        choice = rules.choose(image.name)
        if choice.keep:
            raise ConfigurationError(f"{image.label}: a rule keeps it as a file, and a store was asked for")
        # Who names a quality for this one image means it, whatever the image is called.
        options = choice.options if choice.named or not rules.asked else rules.base
        if not choice.named and not rules.asked and image.labels:
            options = choice.for_labels().options
        mask = mask_beside(key, options.mask)
        if mask is not None:
            if place.size(mask) is None or isinstance(place, ZipPlace):
                raise SourceError(f"{place.label(mask)}: no such mask; give the path of one")
            options = replace(options, mask=place.label(mask))
        return convert_image(image, destination, options, progress)


def _only_image(source: str, kind: Nature, rules: Rules, stack: ExitStack) -> tuple[Place, str]:
    """Return the only image of a folder or zip, readable until the stack is closed."""
    if kind == "zip":
        place: Place = stack.enter_context(ZipPlace(*files.split(source)))
    else:
        place = files.place(source)
    found: list[tuple[Place, str]] = []
    for item in stack.enter_context(Plan(place, "zip" if kind == "zip" else "tree", rules)):
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
    return found[0]


def document(job: Job) -> dict[str, Any]:
    """Return the record of a job. It goes where the archive goes, so it names no folders of this machine."""
    base = job.rules.base
    where = f"{job.source}/{job.name}" if job.kind == "zip" else job.source
    return {
        "version": VERSION,
        "tool": f"inrstore {version('inrstore')}",
        "format": FORMAT_VERSION,
        "source": {"kind": job.kind, "name": job.name, "at": manifest.digest(where.encode())},
        "options": {
            "promise": base.quality.to_dict(),
            **({"unasked": True} if base.quality.unasked else {}),
            "preset": base.preset,
            "mode": base.mode,
            "network": None if base.network is None else base.network.to_dict(),
            "seed": base.seed,
            "zarr_format": base.zarr_format,
            "store": base.container,
            "mask": described(base.mask),
            "strip": base.strip,
            "chunks": list(base.chunks) if isinstance(base.chunks, tuple) else base.chunks,
            "rules": [{**rule, **({"mask": described(rule["mask"])} if "mask" in rule else {})}
                      for rule in job.rules.to_dict()],
            **({"shared": digests(base.shared)} if base.shared else {}),
            "include": list(job.rules.include),
            "exclude": list(job.rules.exclude),
        },
    }  # fmt: skip


def check_fitting(plan: Planned, place: Place, rules: Rules) -> None:
    """Refuse rules that no image of a job fits, and inclusions that no file fits: nothing is quietly left out.

    Of folders of scans the names of the images are not known before; what fits them is looked at afterwards.

    Raises
    ------
    ConfigurationError
        Naming them.
    """
    if not plan.items:
        return  # an error of its own
    kinds = plan.kinds()
    left = [] if "dicom" in kinds else unmatched(plan, place, rules, _rules_in_zips(plan, place, rules))
    if left:
        suffixes = sorted({suffix for item in plan if item.kind == "image" and (suffix := suffix_of(item.key))})
        near = [name for one in left for name in suffixes if name.lower() == one.lower()]
        hint = f" (did you mean {', '.join(near)}? capitals count)" if near else ""
        raise ConfigurationError(f"rules: no image fits [{'], ['.join(left)}]{hint}; --allow-unmatched goes on")
    globs = [] if kinds & {"zip", "dicom"} else list(rules.include)
    for item in plan if globs else ():
        globs = [glob for glob in globs if not matches(glob, item.key)]
        if not globs:
            break
    if globs:
        raise ConfigurationError(f"include: no file fits {', '.join(globs)}; --allow-unmatched goes on")


def _rules_in_zips(plan: Planned, place: Place, rules: Rules) -> Iterator[str]:
    """Yield the rules that images in zips fit."""
    for item in plan:
        if item.kind != "zip":
            continue
        bulk = item.key.rpartition("/")[2]
        with suppress(SourceError), ZipPlace(place, item.key) as inside:  # a damaged one fails when its turn comes
            with Plan(inside, "zip", rules, base=item.out, bulk=bulk) as members:
                for member in members:
                    if member.kind == "image":
                        yield choice_of(rules, member, bulk).rule


def recorded_rules(where: str, found: Mapping[str, Any], mask: str, shared: Sequence[bytes] = (),
                   others: Sequence[bytes] = ()) -> Rules:  # fmt: skip
    """Return the rules of the job of an archive, as they were recorded.

    Parameters
    ----------
    where : str
        The archive, for messages.
    found : mapping
        Its job.
    mask : str
        Path of the mask for all images, if the job had one; the record knows its name and digest alone.
    shared : sequence of bytes
        Shared networks that the command gives: again, for the record knows their digests alone, or instead.
    others : sequence of bytes
        Those that a rules file gives.

    Raises
    ------
    ConfigurationError
        If a mask or a shared network is needed and not given.
    StoreError
        If the record is damaged.
    """
    try:
        options = dict(found["options"])
        base = Options(
            quality=replace(Quality.from_dict(options["promise"]), unasked=bool(options.get("unasked"))),
            preset=options["preset"], mode=options["mode"],
            network=Network.of(options.get("network")), seed=options["seed"], zarr_format=options["zarr_format"],
            container=options["store"],
            mask=_mask_again(where, options["mask"], mask),
            chunks=chunks_of(options["chunks"]), strip=bool(options.get("strip", False)),
            shared=_shared_base(where, options, shared, others),
        )  # fmt: skip
        rules = tuple(_rule_again(where, values, (*shared, *others)) for values in options["rules"])
        return Rules(base=base, rules=rules, include=tuple(options["include"]), exclude=tuple(options["exclude"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where}: its job cannot be read: {error!r}") from error


def _rule_again(where: str, values: Mapping[str, Any], shared: Sequence[bytes]) -> Rule:
    name, own = str(values["name"]), {key: values[key] for key in QUALITIES if key in values}
    mask = values.get("mask")
    return Rule(
        name=name, quality=Quality.from_dict(own) if own else None, preset=values.get("preset"),
        network=Network.of(values.get("network")), mask=None if mask is None else _mask_again(where, mask, ""),
        keep=values.get("keep") == "file",
        shared=_shared_again(where, values["shared"], shared) if "shared" in values else None,
    )  # fmt: skip


def _shared_base(where: str, options: Mapping[str, Any], shared: Sequence[bytes], others: Sequence[bytes]
              ) -> tuple[bytes, ...]:  # fmt: skip
    """Return the shared networks of images that no rule speaks of; one that is given for a rule is none of them."""
    recorded = options.get("shared", [])
    if not shared:
        return _shared_again(where, recorded, others)
    of_rules = {digest for values in options["rules"] for digest in values.get("shared", ())} - set(recorded)
    return tuple(data for digest, data in zip(digests(shared), shared, strict=True) if digest not in of_rules)


def _shared_again(where: str, recorded: Sequence[str], given: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the shared networks of an earlier run, of which the record has the digests."""
    known = dict(zip(digests(given), given, strict=True))
    missing = [digest for digest in recorded if digest not in known]
    if missing:
        raise ConfigurationError(f"{where}: was made with shared networks; give those files again ({missing[0]} lacks)")
    return tuple(known[digest] for digest in recorded)


def _mask_again(where: str, recorded: str, given: str) -> str:
    """Return the mask of an earlier run; of a path the record has its name and digest."""
    known = re.fullmatch(r"(.+) \([0-9A-Za-z_-]{22}\)", recorded)
    if known is None:
        return given or recorded
    if not given:
        raise ConfigurationError(f"{where}: was made with the mask {known[1]}; give its path, or the rules, again")
    return given


def absolute(where: str) -> str:
    """Return a path or URL as workers in other folders see it."""
    return where.rstrip("/") if files.is_url(where) else os.path.abspath(where)


def mask_path(mask: str) -> str:
    """Return the mask of a command: the path of a file there is, or a name to be looked up beside each image."""
    if not mask or files.is_url(mask):
        return mask
    if os.path.isfile(mask):
        return os.path.abspath(mask)
    if os.path.isabs(mask) or ".." in Path(mask).parts:
        raise SourceError(f"{mask}: no such mask")
    return mask


def check_page(page: str, job: Job) -> None:
    """Refuse a page that would replace a file of the source or the archive, or something else that is no page."""
    page_template()
    if files.is_url(page) or not page.lower().endswith((".html", ".htm")):
        raise ConfigurationError(f"{page}: the report must be a file of this machine that ends in .html")
    source = f"{job.source}/{job.name}" if job.kind == "zip" else job.source
    for place in (source, job.destination):
        if not files.is_url(place) and f"{os.path.realpath(page)}/".startswith(f"{os.path.realpath(place)}/"):
            raise ConfigurationError(f"{page}: the report cannot lie in {place}")
    check_replaceable(Path(page))


def check_apart(source: str, destination: str) -> None:
    """Refuse an archive in its own source, which would grow while it is read, and the other way round."""
    if files.is_url(source) != files.is_url(destination):
        return
    one, other = source, destination
    if not files.is_url(source):
        one, other = os.path.realpath(source), os.path.realpath(destination)
    if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
        raise ConfigurationError(f"{destination}: source and destination cannot lie in each other")
