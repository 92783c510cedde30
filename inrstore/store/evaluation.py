"""A source and stores made of it -> what compression did to what people compute from the image.

Stores are decoded one after the other and compared with the source; of each only figures and a slice of each map are
kept, so that memory holds the source, one decoded image and the maps of the source.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from inrstore import files
from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.evaluate import ct, dmri, fmri, noise, page, plain, structural, yardsticks
from inrstore.evaluate.findings import Finding, Image, Result, Truth, value
from inrstore.files import durable
from inrstore.files.pages import check_replaceable
from inrstore.sources import Source, read_image
from inrstore.store import layout
from inrstore.store.defaults import KINDS, Kind, kind_of
from inrstore.store.masks import read_mask
from inrstore.store.reader import Store
from inrstore.store.reports import Clock, JobCallback

_HEADER = ("candidate", "bytes", "ratio", "bits_per_voxel", "measure", "region", "statistic", "value", "unit")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A store, or what else was done to the source, and how far it is from the source.

    Parameters
    ----------
    name : str
        Path of the store, or the name of the yardstick.
    kind : {"store", "yardstick"}
    note : str
        How a yardstick was set.
    nbytes : int or None
        All files of the store; None for what is no file.
    ratio, bits_per_voxel : float or None
        Uncompressed bytes over `nbytes`, and 8 times these over the values of the image.
    findings : tuple of Finding
    """

    name: str
    kind: Literal["store", "yardstick"]
    note: str = ""
    nbytes: int | None = None
    ratio: float | None = None
    bits_per_voxel: float | None = None
    findings: tuple[Finding, ...] = ()

    def find(self, measure: str, region: str, statistic: str = "value") -> float | None:
        """Return one figure, None if there is none."""
        for one in self.findings:
            if (one.measure, one.region, one.statistic) == (measure, region, statistic):
                return one.value
        return None


@dataclass(frozen=True, kw_only=True)
class EvaluateReport:
    """What compression did to an image.

    Parameters
    ----------
    source : str
    kind : str
        What the image was taken for: "dmri", "fmri", "structural", "ct", or "image" for the measures of any.
    shape : tuple of int
        Slowest axis first.
    dtype : str
    source_findings : tuple of Finding
        What the source is like.
    candidates : tuple of Candidate
        The stores, then the yardsticks.
    notes : tuple of str
        What its user should know.
    report, table : str or None
        Page and CSV file that were written.
    seconds : float
    """

    source: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    source_findings: tuple[Finding, ...]
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    report: str | None = None
    table: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the lines of the table, one for each figure, the first with the names of the columns."""
        yield _HEADER
        for one in self.candidates:
            for found in one.findings:
                yield (one.name, one.nbytes, one.ratio, one.bits_per_voxel, found.measure, found.region,
                       found.statistic, found.value, found.unit)  # fmt: skip


class Model(Protocol):
    """What is computed from an image of some kind: the source's, which candidates are compared with."""

    mask: Truth

    def compare(self, voxels: Image, /) -> Result:
        """Compare a candidate."""

    def describe(self) -> tuple[Finding, ...]:
        """Return what the source is like."""

    def reference_maps(self) -> dict[str, Image]:
        """Return the source's maps."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of an evaluation.

    Parameters
    ----------
    kind : str or None
        None to find out.
    suffix : str
        BIDS suffix of the source's name.
    mask : str
        Path or URL of a mask, "" for none.
    yardsticks : bool
    seed : tuple of int or None
        (x, y, z) of the seed of a connectivity.
    report, table : str or None
        Page and CSV file to write.
    """

    kind: Kind | None = None
    suffix: str = ""
    mask: str = ""
    yardsticks: bool = False
    seed: tuple[int, int, int] | None = None
    report: str | None = None
    table: str | None = None


def evaluate(
    source: str | os.PathLike[str], stores: Sequence[str], wanted: Wanted, progress: JobCallback | None = None
) -> EvaluateReport:
    """Compare stores with their source; see `inrstore.api.evaluate`."""
    start = time.perf_counter()
    _check(stores, wanted)
    opened = [Store(where) for where in stores]
    image = read_image(*files.split(source), sidecars=True)
    notes = [text for store in opened for text in _fits(store, image)]
    kind: Kind = wanted.kind or kind_of(image, wanted.suffix)
    clock = _Steps(progress, stores=opened, yardsticks=wanted.yardsticks, nbytes=image.voxels.nbytes)
    clock.next(f"looking at {image.name}")
    model = None
    if kind != "image":
        try:
            model = model_of(kind, image, wanted)
        except (MissingDependencyError, ConfigurationError) as error:
            if wanted.kind is not None or wanted.mask or wanted.seed:
                raise
            notes.append(f"only what any image is measured by: {error}")
            kind = "image"
    work = _Work(image, model, wanted.mask)
    notes += work.notes
    found = [_of_store(work, store, clock) for store in opened]
    if wanted.yardsticks:
        found += _of_yardsticks(work, model, found, clock, notes)
    candidates = tuple(candidate for candidate, _ in found)
    result = EvaluateReport(
        source=image.label, kind=kind, shape=image.voxels.shape, dtype=image.voxels.dtype.name, notes=tuple(notes),
        source_findings=(*work.noise(), *(() if model is None else model.describe())), candidates=candidates,
        seconds=time.perf_counter() - start,
    )  # fmt: skip
    if wanted.table:
        _write(Path(wanted.table), [_csv(result)])
        result = replace(result, table=wanted.table)
    if wanted.report:
        clock.next("writing the report")
        _write(Path(wanted.report), (piece.encode() for piece in _page(result, work, model, found)))
        result = replace(result, report=wanted.report)
    return result


def _check(stores: Sequence[str], wanted: Wanted) -> None:
    """Refuse what cannot be done before any work."""
    if not stores:
        raise ConfigurationError("stores: give at least one")
    if len(set(stores)) != len(stores):
        raise ConfigurationError("stores: one is given twice")
    if wanted.kind is not None and wanted.kind not in KINDS:
        raise ConfigurationError(f"kind must be one of {', '.join(KINDS)}, not {wanted.kind!r}")
    if wanted.report:
        check_replaceable(Path(wanted.report))
        page.template()
    if wanted.table:
        check_replaceable(Path(wanted.table), ",".join(_HEADER).encode())


def _fits(store: Store, image: Source) -> Iterator[str]:
    """Check that a store is one of an image like the source; yield what its user should know."""
    if image.voxels.shape != store.grid.shape or image.voxels.dtype != store.source_dtype:
        raise StoreError(
            f"{store.label}: compared with {image.label}: the source is {image.voxels.dtype} {image.voxels.shape}, "
            f"the store {store.source_dtype} {store.grid.shape}"
        )
    if store.attributes["source"]["sha256"] != image.sha256 and store.header() != image.header:
        yield f"{store.label} was made from a file with another header than {image.label}"
    if "mask" in store.attributes:
        yield f"{store.label} has a mask: PSNR, SSIM and errors are those inside it"


def model_of(kind: Kind, image: Source, wanted: Wanted) -> Model:
    """Return what is computed from an image of a kind.

    Raises
    ------
    ConfigurationError
        If the image is not of that kind.
    """
    voxels, scale = image.voxels, {"slope": image.slope, "inter": image.inter}
    mask = None
    if wanted.mask:
        mask = read_mask(wanted.mask, image).reshape(voxels.shape[-3:])
    if wanted.seed is not None and kind != "fmri":
        raise ConfigurationError(f"a seed is for the connectivity of fMRI, not for kind {kind!r}")
    axes = 4 if kind in ("dmri", "fmri") else 3
    if voxels.ndim == 4 and axes == 3 and len(voxels) == 1:
        voxels = voxels[0]
    if voxels.ndim != axes or not image.spatial or voxels.dtype.kind not in "iuf":
        raise ConfigurationError(f"{image.label}: {voxels.dtype} {voxels.shape} is no image of kind {kind!r}")
    if kind == "dmri":
        if image.bval is None or image.bvec is None:
            raise ConfigurationError(f"{image.label}: no gradients (.bval, .bvec) beside it")
        return dmri.Diffusion(voxels, dmri.Gradients(image.bval, image.bvec), mask=mask, **scale)
    if kind == "fmri":
        rear = -1 if image.affine[1, 1] >= 0 else 1
        return fmri.Series(voxels, mask=mask, seed=wanted.seed, rear=rear, **scale)
    if kind == "ct":
        return ct.Tomography(voxels, mask=mask, **scale)
    x, y, z = (*image.voxel_size, 1.0, 1.0, 1.0)[:3]
    names = structural.NAMES.get(wanted.suffix, ()) if mask is not None else ()
    return structural.Structural(voxels, (z, y, x), mask=mask, names=names, **scale)


class _Work:
    """The source as all comparisons need it, and where its slice is that is shown."""

    def __init__(self, image: Source, model: Model | None, mask: str) -> None:
        self.image, self.model = image, model
        self.notes: list[str] = []
        dims = layout.image_dims(image.voxels.ndim)
        self.leading = layout.measurement_axes(dims)
        space = image.voxels.shape[self.leading :]
        depth = space[0] if len(space) == 3 else 1
        self.z = depth // 2
        if model is not None and len(space) == 3:
            self.z = int(np.argmax(model.mask.sum(axis=(1, 2))))
        elif mask:
            self.notes.append("the mask is of no use: only figures of the whole image are measured")
        measurement = [length // 2 for length in image.voxels.shape[: self.leading]]
        self.shown = (*measurement, self.z)
        self.plain = plain.Plain(image.voxels, self.leading, self.shown)
        steps = image.voxel_size
        self.aspect = steps[1] / steps[0] if len(steps) > 1 and steps[0] > 0 and steps[1] > 0 else 1.0

    def compare(self, voxels: Image, inside: Truth | None = None) -> tuple[tuple[Finding, ...], dict[str, Image]]:
        """Return figures of a candidate and slices of its maps."""
        first = self.plain.compare(voxels, inside)
        planes = {"image": self.plane(voxels), **first.maps}
        findings = first.findings
        if self.model is not None:
            like = voxels[0] if voxels.ndim > self.model.mask.ndim and len(voxels) == 1 else voxels
            second = self.model.compare(like)
            findings += second.findings
            planes |= {name: whole[self.z] for name, whole in second.maps.items()}
        return findings, planes

    def noise(self) -> tuple[Finding, ...]:
        """Return the noise of the source, where the model has a mask to look for it in."""
        if self.model is None or self.image.voxels.shape[-1] < 3:
            return ()
        found = noise.deviation(self.image.voxels, self.model.mask)
        return (value("noise of a measurement, median", "mask", np.median(found), "stored units"),)

    def plane(self, voxels: Image) -> Image:
        """Return the slice that is shown."""
        stacked = voxels.reshape(*voxels.shape[: self.leading], *(1, 1, 1, *voxels.shape[self.leading :])[-3:])
        return np.asarray(stacked[self.shown])

    def sizes(self, nbytes: int) -> dict[str, Any]:
        """Return size, ratio and bits a value."""
        voxels = self.image.voxels
        return {"nbytes": nbytes, "ratio": voxels.nbytes / nbytes, "bits_per_voxel": 8 * nbytes / max(1, voxels.size)}


Found: TypeAlias = tuple[Candidate, dict[str, Image]]


def _of_store(work: _Work, store: Store, clock: _Steps) -> Found:
    """Decode a store and compare it."""
    decoded = np.zeros(store.grid.shape, store.dtype)
    clock.next(f"decoding {_name(store.label)}")
    for number, index in enumerate(store.grid, 1):
        decoded[store.grid.region(index)] = store.chunk(index)
        clock.within(number / len(store.grid))
    inside = store.inside()
    clock.next(f"comparing {_name(store.label)}")
    findings, planes = work.compare(decoded.astype(work.image.voxels.dtype, copy=False), inside)
    candidate = Candidate(name=store.label, kind="store", findings=findings, **work.sizes(store.stored_bytes()))
    return candidate, planes


def _of_yardsticks(
    work: _Work, model: Model | None, stores: Sequence[Found], clock: _Steps, notes: list[str]
) -> list[Found]:
    """Do to the source what else might be done to it, and compare that."""
    voxels = work.image.voxels
    found: list[Found] = []

    def add(name: str, make: Callable[[], Image]) -> None:
        clock.next(name)
        findings, planes = work.compare(make())
        found.append((Candidate(name=name, kind="yardstick", findings=findings), planes))

    if isinstance(model, dmri.Diffusion):
        clock.next("two halves of the directions")
        try:
            result = model.halves()
        except ConfigurationError as error:
            notes.append(f"no comparison of two halves: {error}")
        else:
            planes = {name: whole[work.z] for name, whole in result.maps.items()}
            note = "one against the other: about twice the noise of the whole scan"
            found.append((Candidate(name="two halves of the directions", kind="yardstick", note=note,
                                    findings=result.findings), planes))  # fmt: skip
        mask = model.mask
        add("MP-PCA", lambda: yardsticks.denoised(voxels, mask))
    if voxels.ndim >= 3:
        add("smoothing, FWHM 1.5 voxels", lambda: yardsticks.smoothed(voxels))
    names = yardsticks.Codecs.names()
    if not names:
        notes.append('JPEG 2000 and PCA+SPERR at equal bytes need imagecodecs: pip install "inrstore[bench]"')
    if voxels.dtype.kind not in "iu" or voxels.ndim not in (3, 4):
        names = ()
        notes.append("no other codecs beside: they are for integers in 3 or 4 axes")
    codecs = yardsticks.Codecs(voxels) if names else None
    for name in names:
        for candidate, _ in stores:
            clock.next(f"{name} at the bytes of {_name(candidate.name)}")
            assert codecs is not None and candidate.nbytes is not None
            coded = codecs.code(name, candidate.nbytes)
            if coded is None:
                notes.append(f"{name} does not get down to {candidate.nbytes:,} bytes")
                continue
            findings, planes = work.compare(coded.voxels)
            label = f"{name} at the bytes of {_name(candidate.name)}"
            found.append((Candidate(name=label, kind="yardstick", note=coded.setting, findings=findings,
                                    **work.sizes(coded.nbytes)), planes))  # fmt: skip
    return found


class _Steps:
    """Tells how far the work is; each step counts the same."""

    def __init__(self, callback: JobCallback | None, *, stores: Sequence[Store], yardsticks: bool, nbytes: int) -> None:
        self._total = 2 + 2 * len(stores) + (3 + 2 * len(stores) if yardsticks else 0)
        self._clock = Clock(callback, self._total, nbytes, unit="steps")
        self._done, self._stage = -1, ""

    def next(self, stage: str) -> None:
        """Begin another step."""
        self._done, self._stage = self._done + 1, stage
        self.within(0.0)

    def within(self, part: float) -> None:
        """Tell that a part of the step is done."""
        self._clock.tell(self._stage, self._done, min(1.0, (self._done + part) / self._total))


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _write(path: Path, pieces: Any) -> None:
    try:
        durable.write_blocks(path, pieces)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def _csv(result: EvaluateReport) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(result.rows())
    return text.getvalue().encode("utf-8", "surrogateescape")


def _page(result: EvaluateReport, work: _Work, model: Model | None, found: Sequence[Found]) -> Iterator[str]:
    """Return the pieces of the report."""
    source = page.Shown(
        name=work.image.name,
        findings=result.source_findings,
        planes={"image": work.plane(work.image.voxels),
                **({} if model is None else {name: whole[work.z] for name, whole in model.reference_maps().items()})},
    )  # fmt: skip
    shown = []
    for candidate, planes in found:
        facts = []
        if candidate.nbytes is not None and candidate.ratio is not None:
            size = f"{candidate.nbytes:,} bytes, {candidate.ratio:.1f} : 1"
            facts = [f"{size}, {candidate.bits_per_voxel:.3f} bits a value"]
        store = candidate.kind == "store"
        shown.append(page.Shown(
            name=_name(candidate.name) if store else candidate.name, note=candidate.note, nbytes=candidate.nbytes,
            is_store=store, facts=facts, findings=candidate.findings, planes=planes,
        ))  # fmt: skip
    model_module = {"dmri": dmri, "fmri": fmri, "structural": structural, "ct": ct}.get(result.kind)
    about = {
        "kind": result.kind, "image": f"{' x '.join(map(str, result.shape[::-1]))}, {result.dtype}",
        "slice shown": f"z = {work.z}" + (f", t = {work.shown[0]}" if work.leading == 1 else ""),
    }  # fmt: skip
    method = (model_module.__doc__ or "") if model_module is not None else ""
    yield from page.render(
        title=work.image.name, kind=result.kind, facts=about, notes=result.notes,
        method=[*page.paragraphs(plain.__doc__ or ""), *page.paragraphs(method),
                *(page.paragraphs(yardsticks.__doc__ or "") if len(found) > sum(s.is_store for s in shown) else [])],
        source=source, candidates=shown, aspect=work.aspect,
    )  # fmt: skip
