"""Which files are taken, and what is done with each image: globs on names, and rules from a TOML file.

A rules file has a table for each kind of image, the first that fits wins, and one for all others:

    [T1w]                  # the BIDS suffix of the file's name, or the modality of a UK Biobank zip
    lossless = true
    ["*/func/*"]           # a glob on the path of the file in the archive
    rmse = 4.0
    [default]
    psnr = 40
    preset = "small"
    network = "siren3d"    # then also layers, units, steps, sine, omega_0, rate, downsample, channels
    mask = "nodif_brain_mask.nii.gz"
    [FLAIR]
    lossless = true
    shared = "flair.model" # of `inrstore train`; its path is taken from the folder of this file
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeAlias, get_args

from inrstore import files
from inrstore.archive.manifest import digest_of
from inrstore.errors import ConfigurationError, SourceError, StoreError
from inrstore.options import Network, Preset
from inrstore.sources.registry import stem
from inrstore.store import manifest
from inrstore.store.options import Options
from inrstore.store.parameter import read_parameter
from inrstore.store.quality import Quality

DEFAULT = "default"
MAX_RULES_BYTES = 1 << 20

LABELS = frozenset({"mask", "dseg", "seg", "label", "labels", "parc", "aparc", "aseg", "atlas", "roi"})
"""Parts of names of images whose values are names of regions: a mean error makes no sense for them."""

UK_BIOBANK = {"20250": "dwi", "20252": "T1w", "20253": "FLAIR", "20227": "bold", "20249": "bold", "20251": "swi"}
"""Data field -> modality, by the BIDS name (UK Biobank showcase, bulk NIfTI fields)."""

_BULK_ZIP = re.compile(r"\d+_(\d{5})_\d+_\d+\.zip", re.ASCII)
QUALITIES = ("psnr", "rmse", "max_error", "noise", "preserve", "lossless")
_TYPES: dict[str, tuple[type, ...]] = {
    "psnr": (int, float), "rmse": (int, float), "max_error": (int, float), "lossless": (bool,),
    "noise": (int, float), "preserve": (str, dict),
    "shared": (str,),
    "preset": (str,), "mask": (str,), "keep": (str,), "network": (str,), "sine": (str,),
    **{one.name: (int, float) if isinstance(one.default, float) else (int,)
       for one in fields(Network) if not isinstance(one.default, str)},
}  # fmt: skip


_NETWORK = ("network", *(one.name for one in fields(Network) if one.name != "name"))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One table of a rules file.

    Parameters
    ----------
    name : str
        A suffix such as "dwi", or a glob.
    quality : Quality or None
        None leaves it as it is for all others.
    preset : {"fast", "balanced", "small", "paper"} or None
        Effort.
    mask : str or None
        A mask, "" for none; see `Rules`.
    keep : bool
        Whether the image is copied as a file instead.
    shared : tuple of bytes or None
        Networks that lossless chunks may name; None leaves them as they are for all others.
    network : Network or None
        The network that holds its chunks; of other images where it is None.
    """

    name: str
    quality: Quality | None = None
    preset: Preset | None = None
    network: Network | None = None
    mask: str | None = None
    keep: bool = False
    shared: tuple[bytes, ...] | None = None

    def apply(self, options: Options) -> Options:
        """Return options with what the rule sets."""
        return replace(
            options,
            quality=self.quality or options.quality,
            preset=self.preset or options.preset,
            network=self.network or options.network,
            mask=options.mask if self.mask is None else self.mask,
            shared=options.shared if self.shared is None else self.shared,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with what the rule sets."""
        values: dict[str, Any] = {} if self.quality is None else self.quality.to_dict()
        network = None if self.network is None else self.network.to_dict()
        shared = None if self.shared is None else digests(self.shared)
        own = {"preset": self.preset, "network": network, "mask": self.mask, "keep": "file" if self.keep else None,
               "shared": shared}  # fmt: skip
        return {"name": self.name, **values, **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is done with an image.

    Parameters
    ----------
    options : Options
        Its mask is still a name to be looked up.
    keep : bool
        Whether it is copied as a file instead.
    named : bool
        Whether a rule names this image, so that its header does not turn it into one of labels.
    rule : str
        Name of the rule that counts, "" for none.
    """

    options: Options
    keep: bool = False
    named: bool = False
    rule: str = ""

    @property
    def settings(self) -> str:
        """What tells whether an image would be made in the same way again: a digest of all that decides it."""
        own = self.options
        values: dict[str, Any] = {"quality": own.quality.to_dict(), "preset": own.preset, "mode": own.mode,
                  "seed": own.seed, "zarr_format": own.zarr_format, "store": own.container, "mask": described(own.mask),
                  "chunks": own.chunks, "keep": self.keep, "strip": own.strip,
                  "network": None if own.network is None else own.network.to_dict()}  # fmt: skip
        if own.shared:  # archives from before it could be asked for have no such key
            values["shared"] = digests(own.shared)
        return manifest.digest(json.dumps(values, sort_keys=True).encode())

    def for_labels(self) -> Choice:
        """Return what is done with an image of labels: every bit is kept, nothing is masked."""
        return replace(self, options=replace(self.options, quality=Quality(lossless=True), mask=""))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which files are taken, and what is done with each image.

    Parameters
    ----------
    base : Options
        For images that no rule speaks of. Its mask, like that of a rule, is a URL, an absolute path, or the name
        of a file beside each image; there `{name}` stands for the image's name without .nii.gz, `{entities}`
        for that without its last part. An image beside which there is no such file is not masked.
    rules : tuple of Rule
        The first that fits counts.
    include : tuple of str
        If there are any, files are taken whose paths in the archive fit one of these globs; see `matches`.
    exclude : tuple of str
        Never files that fit one of these.
    asked : bool
        Whether the command itself names a quality, which a single image then gets whatever it is called.
    """

    base: Options
    rules: tuple[Rule, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    asked: bool = False

    def choose(self, path: str, bulk: str = "") -> Choice:
        """Return what is done with an image.

        Parameters
        ----------
        path : str
            Its path in the archive, before it becomes a store: "sub-01/dwi/sub-01_dwi.nii.gz".
        bulk : str
            The name of the zip it comes from, if it does.
        """
        suffix, field = suffix_of(path), modality_of_zip(bulk)
        choice = Choice(options=self.base)
        for rule in self.rules:
            named = suffix == rule.name or (is_glob(rule.name) and matches(rule.name, path))
            if named or field == rule.name:
                choice = Choice(options=rule.apply(self.base), keep=rule.keep, named=named, rule=rule.name)
                break
        if choice.options.quality.default:
            choice = replace(choice, options=replace(choice.options, modality=field or suffix))
        return choice.for_labels() if is_label_name(path) and not choice.named else choice

    @property
    def settings(self) -> str:
        """What tells whether all images would be made in the same way again."""
        rules = [{**rule.to_dict(), "mask": described(rule.mask or "")} for rule in self.rules]
        return manifest.digest(json.dumps([Choice(options=self.base).settings, rules], sort_keys=True).encode())

    def takes(self, path: str) -> bool:
        """Return whether a file is taken."""
        return self.included(path) and not self.excluded(path)

    def included(self, path: str) -> bool:
        """Return whether there are no inclusions or one of them fits."""
        return not self.include or any(matches(glob, path) for glob in self.include)

    def excluded(self, path: str) -> bool:
        """Return whether an exclusion fits."""
        return any(matches(glob, path) for glob in self.exclude)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the rules as JSON."""
        return [rule.to_dict() for rule in self.rules]


def mask_beside(key: str, mask: str) -> str | None:
    """Return the key of the mask of an image, None if it is one path or URL for all images."""
    if not mask or files.is_url(mask) or os.path.isabs(mask):
        return None
    folder, slash, name = key.rpartition("/")
    own = stem(name)
    return folder + slash + mask.replace("{name}", own).replace("{entities}", own.rpartition("_")[0])


def digests(shared: Sequence[bytes]) -> list[str]:
    """Return what tells shared parameters from others, as it is recorded."""
    return [manifest.digest(data) for data in shared]


def described(mask: str) -> str:
    """Return a mask as it is recorded: the record names no folders of this machine, so a path becomes a digest.

    Raises
    ------
    OSError
        If it is a path, and cannot be read.
    """
    return _described(mask, os.stat(mask).st_mtime_ns) if os.path.isabs(mask) else mask


@lru_cache(maxsize=64)
def _described(mask: str, _written: int) -> str:
    with open(mask, "rb") as file:
        return f"{os.path.basename(mask)} ({digest_of(file)[1]})"


def is_glob(name: str) -> bool:
    """Return whether the name of a table is a glob, or a path, which is one without signs."""
    return any(sign in name for sign in "*?[/.")


_Token: TypeAlias = str | re.Pattern[str]
_ANY, _FOLDERS = "*", "**/"
_ONE = re.compile(".", re.DOTALL)


def matches(glob: str, path: str) -> bool:
    """Return whether a path fits a glob: `*` is any text, also across folders, `?` one sign, `[ab]` one of these.

    `**/` is any number of folders, also none. Capitals count. The time is bounded by the product of both lengths.
    """
    size, reached, masks = len(path), 1, dict[_Token, int]()  # bit i: the glob so far fits the first i signs
    for token in _compiled(glob):
        if not reached:
            return False
        if token in (_ANY, _FOLDERS):
            behind = (2 << size) - (reached & -reached)
            reached = behind if token == _ANY else reached | (behind & _places("/", path, masks)) << 1
        else:
            reached = (reached & _places(token, path, masks)) << 1
    return bool(reached >> size)


def _places(token: _Token, path: str, masks: dict[_Token, int]) -> int:
    """Return where in a path a sign stands, or one of a set: bit i for the sign at i."""
    if token not in masks:
        found = re.finditer(re.escape(token) if isinstance(token, str) else token, path)
        masks[token] = sum(1 << match.start() for match in found)
    return masks[token]


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> tuple[_Token, ...]:
    """Return a glob as single signs, sets of signs, `*` and `**/`; a star that is meant stands in a set."""
    tokens: list[_Token] = []
    for part in re.split(r"(\*\*/|\*+|\?|\[[^\]]+\])", glob):
        if part == _FOLDERS:
            tokens.append(_FOLDERS)
        elif part.startswith("*"):
            tokens.append(_ANY)
        elif part == "?":
            tokens.append(_ONE)
        elif part.startswith("[") and part.endswith("]"):
            inside = re.sub(r"([\\\[&~|^])", r"\\\1", part[1:-1].removeprefix("!"))
            try:
                tokens.append(re.compile(f"[{'^' if part[1] == '!' else ''}{inside}]"))
            except re.error as error:
                raise ConfigurationError(f"{glob!r} is not a glob: {error}") from error
        else:
            tokens.extend(part)
    return tuple(tokens)


def suffix_of(path: str) -> str:
    """Return the BIDS suffix of an image: "dwi" of "sub-01/dwi/sub-01_acq-b_dwi.nii.gz"."""
    return stem(path).rpartition("/")[2].rpartition("_")[2]


def modality_of_zip(name: str) -> str:
    """Return the modality of a UK Biobank zip by the data field in its name, "" if it is none."""
    found = _BULK_ZIP.fullmatch(name)
    return UK_BIOBANK.get(found.group(1), "") if found else ""


def is_label_name(path: str) -> bool:
    """Return whether the name of an image says that its values are labels."""
    parts = re.split(r"[_\-.+ ]", stem(path).rpartition("/")[2].lower())
    return not LABELS.isdisjoint(parts)


def read_rules(path: str, base: Options, *, asked: bool) -> Rules:
    """Read a rules file.

    Parameters
    ----------
    path : str
        Path or URL.
    base : Options
        What the command asks for.
    asked : bool
        Whether the command itself names a quality.

    Raises
    ------
    SourceError
        If it cannot be read.
    ConfigurationError
        Naming the file, the table and the key that is wrong.
    """
    try:
        tables = tomllib.loads(files.read_text(*files.split(path), MAX_RULES_BYTES))
    except ValueError as error:  # a number of thousands of digits is no TOMLDecodeError
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    except RecursionError:
        raise SourceError(f"{path}: nested too deeply") from None
    rules = [_rule(path, name, table) for name, table in tables.items()]
    default = next((rule for rule in rules if rule.name == DEFAULT), None)
    if default is not None:
        if asked and default.quality is not None:
            raise ConfigurationError(f"{path}: [default] gives a quality, and so does the command; give it once")
        if default.keep:
            rules.append(replace(default, name="*"))
        base = default.apply(base)
    return Rules(base=base, rules=tuple(rule for rule in rules if rule.name != DEFAULT), asked=asked)


def parameters_of(path: str) -> tuple[bytes, ...]:
    """Return the shared networks that a rules file names; errors as in `read_rules`."""
    rules = read_rules(path, Options(quality=Quality(lossless=True)), asked=False)
    return rules.base.shared + tuple(data for rule in rules.rules for data in rule.shared or ())


def _rule(path: str, name: str, table: Any) -> Rule:
    where = f"{path}: [{name}]"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{path}: {name}: stands outside a table; write [default] above it")
    if not name or not (is_glob(name) or re.fullmatch(r"[A-Za-z0-9]+", name)):
        raise ConfigurationError(f"{where}: neither a suffix such as dwi or T1w, nor a glob, nor default")
    if is_glob(name):
        matches(name, "")
    for key, value in table.items():
        if key not in _TYPES:
            raise ConfigurationError(f"{where} {key}: not known; a rule has {', '.join(_TYPES)}")
        if not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and bool not in _TYPES[key]):
            kind = "true or false" if bool in _TYPES[key] else "a text" if str in _TYPES[key] else "a number"
            raise ConfigurationError(f"{where} {key}: must be {kind}, not {value!r}")
    if table.get("preset") not in (None, *get_args(Preset)):
        raise ConfigurationError(f"{where} preset: must be one of {', '.join(get_args(Preset))}")
    if table.get("keep") not in (None, "file"):
        raise ConfigurationError(f'{where} keep: can only be "file"')
    try:
        given = {key: table[key] for key in QUALITIES if key in table and table[key] is not False}
        quality = Quality.from_dict(given) if given else None
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    named = {"name" if key == "network" else key: table[key] for key in _NETWORK if key in table}
    if named and "name" not in named:
        raise ConfigurationError(f"{where} {next(iter(named))}: goes with network")
    try:
        network = Network.of(named or None)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where} {error}") from error
    shared = None
    if "shared" in table:
        try:
            shared = (read_parameter(_beside(path, table["shared"])),)
        except StoreError as error:
            raise ConfigurationError(f"{where} shared: {error}") from error
    return Rule(
        name=name, quality=quality, preset=table.get("preset"), network=network, mask=table.get("mask"),
        keep=table.get("keep") == "file", shared=shared,
    )  # fmt: skip


def _beside(path: str, name: str) -> str:
    """Return a file that a rules file names: a URL, an absolute path, or one from the folder of the rules."""
    if files.is_url(name) or os.path.isabs(name):
        return name
    if files.is_url(path):
        return f"{path.rpartition('/')[0]}/{name}"
    return os.path.join(os.path.dirname(path), name)
