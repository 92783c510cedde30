"""What the commands print: results on standard output, errors as one line on standard error.

Names of files may hold anything: what a terminal could take for a command or show in another order is printed as an
escape. JSON has every text as it is.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import typer

from inrstore.archive.changes import UpdatePlan
from inrstore.archive.estimate import ConvertPlan
from inrstore.archive.export import ArchiveExportReport
from inrstore.archive.merge import MergeReport
from inrstore.archive.outcomes import ArchiveConvertReport, ArchiveInfo, ArchiveReport, reason
from inrstore.archive.removal import RemovalReport
from inrstore.archive.verify import ArchiveVerifyReport
from inrstore.errors import ConfigurationError, InrstoreError
from inrstore.evaluate.findings import BIAS, MEAN_ABSOLUTE, VALUE
from inrstore.store.evaluation import EvaluateReport
from inrstore.store.export import ExportReport
from inrstore.store.reports import ConvertReport, InfoReport, StoreReport, VerifyReport
from inrstore.store.tradeoff import TradeoffReport
from inrstore.store.train import TrainReport
from inrstore.views.resampled import ResampledReport

_SHOWN_CHUNKS = 12
_SHOWN_FAILURES = 50
_SHOWN_NAMES = 10


class Report(Protocol):
    """What every command gives."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""


_T = TypeVar("_T")


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn an error into one line on standard error and an exit code: 2 for wrong options, 1 for the rest.

    Warnings of libraries become such lines too, each once.
    """
    try:
        with _warnings():
            yield
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from there")
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        known = isinstance(error, InrstoreError | OSError | MemoryError)
        text = (str(error) or type(error).__name__) if known else reason(error)
        _say(text)
        if as_json:
            typer.echo(json.dumps({"error": text, "kind": type(error).__name__}))
        raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from None


@contextmanager
def _warnings() -> Iterator[None]:
    """Show what numpy and the like warn of as lines of this program, without the line of code."""
    seen = set[str]()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = f"warning: {message}"
        if text not in seen:
            seen.add(text)
            _say(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _say(text: str) -> None:
    _print(f"inrstore: {printable(' '.join(text.split()))}", sys.stderr)


def note(text: str) -> None:
    """Print a line on standard error: a warning, or what a process does that goes on."""
    _say(text)


def address(text: str) -> None:
    """Print where something is served, at once."""
    _print(printable(text), sys.stdout)
    sys.stdout.flush()


def _print(text: str, stream: Any) -> None:
    """Print a text whatever the encoding of the terminal is."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def printable(text: str) -> str:
    """Return a text with escapes for what has no shape of its own: control characters, changes of direction."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _printable(value: _T) -> _T:
    """Return a report with all its texts printable."""
    changed: Any = value
    if isinstance(value, str):
        changed = printable(value)
    elif isinstance(value, Mapping):
        changed = {_printable(key): _printable(part) for key, part in value.items()}
    elif isinstance(value, list | tuple):
        changed = type(value)(map(_printable, value))
    elif is_dataclass(value) and not isinstance(value, type):
        changed = replace(value, **{one.name: _printable(getattr(value, one.name)) for one in fields(value)})
    return changed  # type: ignore[no-any-return]


def exit_of(report: Report, *, allow_gone: bool = False) -> None:
    """End with code 1 if a job did not do all, or found that the source lacks what the archive has."""
    if isinstance(report, TradeoffReport) and report.failed:
        raise typer.Exit(1)
    if not isinstance(report, ArchiveConvertReport):
        return
    if not report.complete or report.unmatched or (report.gone and not allow_gone):
        raise typer.Exit(1)


def show(report: Report, as_json: bool) -> None:
    """Print a result, as one JSON object or for people."""
    if as_json:
        typer.echo(json.dumps(report.to_dict(), allow_nan=False))
        return
    text = next(text for kind, text in _TEXTS.items() if isinstance(report, kind))
    _print(text(_printable(report)), sys.stdout)


def show_plan(plan: UpdatePlan) -> None:
    """Print on standard error what an update is going to do."""
    _print(update_plan_text(_printable(plan)), sys.stderr)


def show_images(records: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print the images of an archive."""
    _print(json.dumps(records) if as_json else images_text(_printable(records)), sys.stdout)


def convert_text(report: ConvertReport) -> str:
    """Return the result of a conversion."""
    time = f"{_seconds(report.seconds)}, {report.mb_per_s:.2f} MB/s"
    dropped = f"\n  taken out {', '.join(report.stripped)}" if report.stripped else ""
    warned = "".join(f"\n  warning   {text}" for text in report.warnings)
    if report.kept is not None:
        dropped += f"\n  mask      keeps {100 * report.kept:.1f} % of the places; errors and PSNR are of these alone"
    return f"{report.store}\n{_lines(report)}{dropped}{warned}\n  time      {time}"


def verify_text(report: VerifyReport) -> str:
    """Return the result of a verification."""
    text = f"{report.store}: good\n{_lines(report)}"
    if report.against is not None:
        same = "the file it was made from" if report.same_file else "the same image, though another file"
        text += f"\n  against   {report.against}: {same}"
    for name in report.extra_files:
        text += f"\n  extra     {name} does not belong to the store"
    return f"{text}\n  time      {_seconds(report.seconds)}, {report.mb_per_s:.1f} MB/s"


def info_text(report: InfoReport) -> str:
    """Return what a store says of itself."""
    shape = ", ".join(f"{name} {length}" for name, length in zip(report.dims, report.shape, strict=True))
    text = (
        f"{report.store}\n"
        f"  source    {report.source['name']} ({report.source['kind']})\n"
        f"  image     {shape}; {report.dtype}; Zarr v{report.zarr_format}\n"
        f"{_lines(report)}\n"
        f"  chunks    {' x '.join(map(str, report.chunk_shape))}, {size_text(report.image_bytes)} together"
    )
    for chunk in report.chunk_list[:_SHOWN_CHUNKS]:
        details = ", ".join(f"{key} {value}" for key, value in chunk.items() if key not in ("key", "mode", "bytes"))
        text += f"\n    {chunk['key']}  {chunk['mode']}  {chunk['bytes']:,} bytes  {details}".rstrip()
    hidden = len(report.chunk_list) - _SHOWN_CHUNKS
    return text + (f"\n    ... {hidden} more" if hidden > 0 else "")


def export_text(report: ExportReport) -> str:
    """Return the result of an export."""
    size, rate = size_text(report.file_bytes), f"{report.mb_per_s:.1f} MB/s"
    return f"{report.file}: {size} in {_seconds(report.seconds)}, {rate}"


def resampled_text(report: ResampledReport) -> str:
    """Return the result of an export on another grid."""
    grid = (
        " x ".join(map(str, report.shape)) + " voxels of " + " x ".join(f"{step:g}" for step in report.spacing) + " mm"
    )
    how = {"network": "by the network of each chunk", "spline": "by a cubic spline through the decoded voxels"}
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.chunk_kinds.items()))
    made = how.get(report.kind, f"by networks and by cubic splines: chunks {counts}")
    return f"{export_text(report)}\n  grid      {grid}\n  values    {made}"


def train_text(report: TrainReport) -> str:
    """Return what was trained."""
    sees, units = ", ".join(map(str, report.radii)), ", ".join(map(str, report.units)) or "none"
    return (
        f"{report.file}\n"
        f"  network   radii {sees}, hidden units {units}: {report.parameters:,} parameters, {size_text(report.bytes)}\n"
        f"  learned   {report.values:,} values of {report.images:,} images in {report.steps:,} steps: mean error "
        f"{report.first_error:.2f} -> {report.last_error:.2f} units of the input\n"
        f"  digest    {report.digest}\n"
        f"  time      {_seconds(report.seconds)}"
    )


def tradeoff_text(report: TradeoffReport) -> str:
    """Return the table of a trade-off, and its point."""
    place = ", ".join(map(str, report.patch))
    lines = [
        report.out,
        f"  patch     {report.size} voxels along each axis from z, y, x = {place}; {report.filled:.1%} not 0",
        "  scale channels neurons     PSNR    SSIM  parameters      CR %  bits/voxel |    bytes      CR %  bits/voxel",
    ]
    for row in report.rows:
        cell = {axis: row[axis] for axis in ("downsample", "channels", "neurons")}
        marks = "*" * (cell == report.point) + "p" * (cell in report.front) + "s" * (cell in report.stored_front)
        psnr = "  exact" if row["psnr"] is None else f"{row['psnr']:7.2f}"
        lines.append(
            f"  1/{cell['downsample']:<3} {cell['channels']:8} {cell['neurons']:7}  {psnr}  {row['ssim']:6.4f}"
            f"  {row['parameters']:10,} {100 * row['cr']:9.3f} {row['bit_rate']:11.3f} | {row['bytes']:8,}"
            f" {100 * row['stored_cr']:9.3f} {row['stored_bit_rate']:11.3f}  {marks}".rstrip()
        )
    lines += [f"  failed    {name}: {why}" for name, why in report.failed.items()]
    point, cheapest = (" ".join(f"{name} {value}" for name, value in cell.items() if value)
                       for cell in (report.point, report.cheapest))  # fmt: skip
    lines += [
        "  left of |: a parameter counts as a voxel, and 32 bits, as in the paper; right of it: bytes on the disk",
        f"  point     {point} (*: equation 8, beta {report.beta:g}); without constraints {cheapest}",
        "  front     p: PSNR and parameters, s: PSNR and bytes on the disk",
    ]
    if report.resumed:
        lines.append(f"  resumed   {report.resumed:,} cells were there from earlier runs")
    return "\n".join([*lines, f"  time      {_seconds(report.seconds)}"])


def archive_convert_text(report: ArchiveConvertReport) -> str:
    """Return the result of a job."""
    text = f"{report.archive}\n{_archive_lines(report)}"
    if report.resumed:
        text += f"\n  resumed   {report.resumed:,} were there from earlier runs"
    if report.report:
        text += f"\n  report    {report.report}"
    for name in report.unmatched:
        text += f"\n  unmatched no image fits the rule [{name}]"
    return f"{text}\n  time      {_seconds(report.seconds)}{_failures(report)}{_gone(report)}"


def convert_plan_text(plan: ConvertPlan) -> str:
    """Return what a job would do, a line for each image."""
    lines = [plan.source]
    for image in plan.images:
        asked = _asked(image.quality)
        asked = f"{asked or 'by its noise'} (default)" if image.default or not asked else asked
        rule = f" [{image.rule}]" if image.rule not in ("", "*") else ""
        size = "" if image.stored_bytes is None else f" -> about {size_text(image.stored_bytes)}"
        took = "" if image.seconds is None else f", {_seconds(image.seconds)}"
        what = image.note or f"{asked}{rule}, {image.preset}, {image.codec}"
        lines.append(f"  {image.path}  {what}  {size_text(image.source_bytes)}{size}{took}")
    lines.append(f"  {plan.copied:,} other files, {size_text(plan.copied_bytes)}, are copied")
    ratio = "" if not plan.stored_bytes else f", {plan.source_bytes / max(1, plan.stored_bytes):.1f} : 1"
    lines.append(f"together {len(plan.images):,} images, {size_text(plan.source_bytes)} of files -> about "
                 f"{size_text(plan.stored_bytes)}{ratio} in {_seconds(plan.seconds)}; nothing was written")  # fmt: skip
    return "\n".join(lines)


def update_plan_text(plan: UpdatePlan) -> str:
    """Return what an update is going to do."""
    text = plan.archive
    for kind, meaning in _KINDS.items():
        count, names = plan.counts[kind], plan.names.get(kind, [])
        if not count:
            continue
        text += f"\n  {kind:<9} {count:,} {meaning}"
        for name in names[:_SHOWN_NAMES]:
            text += f"\n            {name}"
        hidden = count - min(_SHOWN_NAMES, len(names))
        text += f"\n            ... {hidden:,} more" if names and hidden else ""
    return text


def removal_text(report: RemovalReport) -> str:
    """Return what was removed."""
    verb = "would go" if report.dry_run else "removed"
    text = f"{report.archive}: {len(report.removed):,} {verb}, {size_text(report.removed_bytes)}"
    for name in report.removed[:_SHOWN_FAILURES]:
        text += f"\n  {name}"
    hidden = len(report.removed) - _SHOWN_FAILURES
    text += f"\n  ... {hidden:,} more" if hidden > 0 else ""
    for one in report.kept[:_SHOWN_FAILURES]:
        text += f"\n  stays     {one['path']}: {one['reason']}"
    return text


def images_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each image."""
    lines = []
    for record in records:
        shape = "x".join(str(n) for n in reversed(record["shape"])) or "?"
        asked = _asked(record["quality"])
        ratio = "" if record["ratio"] is None else f"{record['ratio']:.1f}:1"
        gone = "  gone from the source" if record["gone"] else ""
        size = size_text(record["stored_bytes"])
        lines.append(f"{record['name']}  {shape} {record['dtype']}  {size}  {ratio}  {asked}{gone}")
    total = sum(record["stored_bytes"] for record in records)
    return "\n".join([*lines, f"{len(records):,} images, {size_text(total)}"])


def merge_text(report: MergeReport) -> str:
    """Return what an archive took in."""
    same = f"; {report.same:,} were there already" if report.same else ""
    what = f"{report.stores:,} stores and {report.files:,} files, {size_text(report.stored_bytes)}"
    return f"{report.archive}: took in {what} from {report.other}{same}"


def archive_info_text(report: ArchiveInfo) -> str:
    """Return what an archive says of itself."""
    source = f"{report.source.get('name')} ({report.source.get('kind')})"
    options = ", ".join(f"{name} {_plain(value)}" for name, value in report.options.items() if value not in ("", []))
    state = "complete" if report.complete else "incomplete; run the same convert command again"
    return (
        f"{report.archive}: {state}\n  source    {source}\n  made by   {report.tool}\n  asked     {options}\n"
        f"{_archive_lines(report)}{_failures(report)}{_gone(report)}"
    )


def archive_verify_text(report: ArchiveVerifyReport) -> str:
    """Return the result of the verification of an archive."""
    part = "" if report.subset is None else f", part {report.subset}"
    how = ", sizes and digests only" if report.fast else ""
    text = (
        f"{report.archive}: good{part}{how}\n"
        f"  checked   {report.stores:,} stores, {report.files:,} files, {size_text(report.stored_bytes)}"
    )
    if report.against is not None:
        text += f"\n  against   {report.against}"
    for name in report.extra_files:
        text += f"\n  extra     {name} does not belong to the archive"
    hidden = report.extra_count - len(report.extra_files)
    text += f"\n  extra     ... {hidden:,} more" if hidden > 0 else ""
    return f"{text}\n  time      {_seconds(report.seconds)}"


def archive_export_text(report: ArchiveExportReport) -> str:
    """Return the result of the export of an archive."""
    zips = f", {report.zips:,} zips" if report.zips else ""
    left = f"; {report.left_out:,} members were not in the archive" if report.left_out else ""
    size = f"{size_text(report.file_bytes)} in {_seconds(report.seconds)}"
    return f"{report.out}: {report.images:,} images, {report.files:,} files{zips}, {size}{left}"


def evaluate_text(report: EvaluateReport) -> str:
    """Return what compression did to an image: a block for each store, a line for each measure."""
    shape = " x ".join(map(str, report.shape[::-1]))
    text = f"{report.source}\n  image     {shape}, {report.dtype}; kind {report.kind}"
    for note in report.notes:
        text += f"\n  note      {note}"
    for one in report.candidates:
        text += f"\n\n{one.name}"
        text += f" ({one.note})" if one.note else ""
        if one.nbytes is not None:
            text += f"\n  size      {size_text(one.nbytes)}, {one.ratio:.1f} : 1, {one.bits_per_voxel:.3f} bits a value"
        measures: dict[str, list[str]] = {}
        units: dict[str, str] = {}
        biases = {(found.measure, found.region): found.value for found in one.findings if found.statistic == BIAS}
        for found in one.findings:
            if found.statistic not in (VALUE, MEAN_ABSOLUTE):
                continue
            key = found.measure if found.statistic == VALUE else f"{found.measure}, mean error (bias)"
            bias = biases.get((found.measure, found.region)) if found.statistic == MEAN_ABSOLUTE else None
            region = "" if found.region == "image" else f"{found.region} "
            shown = "-" if found.value is None else f"{found.value:.4g}"
            measures.setdefault(key, []).append(f"{region}{shown}" + ("" if bias is None else f" ({bias:+.2g})"))
            units[key] = found.unit
        width = max((len(name) for name in measures), default=0)
        for name, parts in measures.items():
            text += f"\n  {name:<{width}}  {', '.join(parts)} {units[name]}".rstrip()
    for what, where in (("report", report.report), ("table", report.table)):
        text += f"\n  {what:<9} {where}" if where else ""
    return f"{text}\n  time      {_seconds(report.seconds)}"


_TEXTS: dict[type[Any], Callable[[Any], str]] = {
    ConvertReport: convert_text,
    TrainReport: train_text,
    TradeoffReport: tradeoff_text,
    VerifyReport: verify_text,
    InfoReport: info_text,
    ResampledReport: resampled_text,
    ExportReport: export_text,
    ArchiveConvertReport: archive_convert_text,
    ArchiveInfo: archive_info_text,
    ArchiveVerifyReport: archive_verify_text,
    ArchiveExportReport: archive_export_text,
    UpdatePlan: update_plan_text,
    ConvertPlan: convert_plan_text,
    RemovalReport: removal_text,
    MergeReport: merge_text,
    EvaluateReport: evaluate_text,
}

_SHOWN_KINDS = 4

_KINDS = {
    "new": "to be converted or copied",
    "changed": "changed in the source: made anew",
    "settings": "with other settings now: made anew",
    "forced": "made anew as asked",
    "gone": "gone from the source: kept",
    "removed": "removed on purpose: left out",
    "same": "as they were",
}


def _asked(quality: Mapping[str, Any]) -> str:
    """Return a quality as people read it."""
    parts = []
    for name, value in quality.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        parts += [f"{name} {measure}={bound:g}" for measure, bound in inner]
        if not isinstance(value, Mapping):
            parts.append(name if value is True else f"{name} {value:g}")
    return ", ".join(parts)


def _origin(report: StoreReport) -> str:
    """Return lines on the noise that a promise is counted in, and on what it was looked for to preserve."""
    text = ""
    if report.noise is not None:
        low, high = report.noise["sigma_range"]
        text += f"\n  noise     {report.noise['sigma']:g} stored units"
        text += (f" ({low:g} to {high:g})" if low != high else "") + f" by {report.noise['estimator']}"
    if report.preserve is not None:
        text += "\n  preserves {measure}: {found:g}, bound {bound:g}".format(**report.preserve)
    return text


def _lines(report: StoreReport) -> str:
    asked = _asked(report.promised)
    sizes = report.mode_bytes if isinstance(report, InfoReport) else {}
    modes = ", ".join(f"{count} {mode}{_saved(sizes.get(mode))}" for mode, count in sorted(report.modes.items()))
    if report.lossless:
        quality = "every bit kept"
    else:
        psnr = "exact" if report.psnr is None else f"PSNR {report.psnr:.2f} dB"
        spread = "" if report.psnr_range is None else f" ({report.psnr_range:.2f} dB over the whole range)"
        quality = f"{psnr}{spread}, rmse {report.rmse:.4g}, largest error {report.max_error:g}"
    return (
        f"  size      {size_text(report.stored_bytes)} for {size_text(report.source_bytes)} of voxels:"
        f" {report.ratio:.1f} : 1\n"
        f"  quality   {quality}; promised: {asked}{_origin(report)}\n"
        f"{_default(report.default)}"
        f"  modes     {modes} of {report.chunks} chunks{_networks(report)}"
    )


_KIND_NAMES = {"dmri": "diffusion MRI", "fmri": "fMRI", "structural": "T1, T2 or FLAIR", "ct": "CT"}


def _default(why: Mapping[str, Any]) -> str:
    """Return a line that says where a quality comes from that nobody asked for."""
    if not why:
        return ""
    name, noise, times = _KIND_NAMES.get(str(why.get("kind"))), why.get("noise"), why.get("times")
    if name is None:
        text = "every bit, for nothing tells what this image is"
    elif isinstance(noise, int | float) and isinstance(times, int | float):
        text = f"{times:g} times the noise of {noise:g} in this image ({name})"
    else:
        text = f"every bit, for no noise can be told from rounding ({name})"
    return f"  default   {text}; --noise, --psnr, --lossless .. for another\n"


def _networks(report: StoreReport) -> str:
    """Return a line on the networks that chunks are, or on those inside transforms and behind AV1, a part of them."""
    chunks = report.chunk_list if isinstance(report, InfoReport) else ()
    alone = [chunk for chunk in chunks if "bits_per_parameter" in chunk]
    if alone:
        kinds = sorted({f"{one['layers']} x {one['width']} {one['activations']}" for one in alone})
        named, more = ", ".join(kinds[:_SHOWN_KINDS]), len(kinds) - _SHOWN_KINDS
        named += f" and {more} more" if more > 0 else ""
        total = sum(one["parameters"] for one in alone)
        bits = sum(one["bits_per_parameter"] * one["parameters"] for one in alone) / max(1, total)
        return f"\n  networks  {named} in {len(alone)} chunks, {total:,} parameters of {bits:.1f} bits"
    held = [chunk for chunk in chunks if "network_bytes" in chunk]
    if not held:
        return ""
    names = ", ".join(sorted({found["network"] for found in held}))
    sizes = {found.get("shared", found["key"]): found["network_bytes"] for found in held}
    where = "that they share" if len(sizes) < len(held) else "of these bytes"
    return f"\n  networks  {names} units in {len(held)} chunks, {size_text(sum(sizes.values()))} {where}"


def _saved(sizes: Mapping[str, int] | None) -> str:
    return "" if sizes is None else f" ({size_text(sizes['bytes'])}, saved {size_text(max(0, sizes['saved']))})"


def _archive_lines(report: ArchiveReport) -> str:
    text = f"  images    {report.converted:,}"
    if report.ratio is not None:
        text += (
            f": {size_text(report.store_bytes)} for {size_text(report.image_bytes)} of files, {report.ratio:.1f} : 1"
        )
    text += f"\n  files     {report.copied:,} as they were\n  size      {size_text(report.stored_bytes)}"
    text += f" for {size_text(report.source_bytes)}"
    if report.psnr is not None:
        text += f"\n  quality   PSNR {report.psnr:.2f} dB at least"
    if report.defaults:
        kinds = ", ".join(f"{count:,} {_KIND_NAMES.get(kind, 'unknown: every bit')}"
                          for kind, count in sorted(report.defaults.items()))  # fmt: skip
        text += f"\n  default   by noise, no quality was asked for: {kinds}"
    modes = ", ".join(f"{count:,} {mode}" for mode, count in sorted(report.modes.items()))
    return text + (f"\n  modes     {modes}" if modes else "")


def _failures(report: ArchiveReport) -> str:
    if not report.failed:
        return ""
    total = report.converted + report.copied + report.failed
    text = f"\n\narchive incomplete: {report.failed:,} of {total:,} failed"
    for failure in report.failures[:_SHOWN_FAILURES]:
        text += f"\n  {failure['key']}: {failure['reason']}"
    hidden = report.failed - min(_SHOWN_FAILURES, len(report.failures))
    return text + (f"\n  ... {hidden:,} more, all in the record and the report" if hidden > 0 else "")


def _gone(report: ArchiveReport) -> str:
    if not report.gone:
        return ""
    text = f"\n\ngone from the source, kept in the archive until `inrstore prune`: {report.gone:,}"
    for name in report.gone_first[:_SHOWN_FAILURES]:
        text += f"\n  {name}"
    hidden = report.gone - min(_SHOWN_FAILURES, len(report.gone_first))
    return text + (f"\n  ... {hidden:,} more" if hidden > 0 else "")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(str(key) if part is True else f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return "; ".join(_plain(part) for part in value)
    return str(value)


def size_text(size: int) -> str:
    """Return a number of bytes for people."""
    if size < 1000:
        return f"{size} bytes"
    power = min(3, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.{2 if power > 1 else 1}f} {('kB', 'MB', 'GB')[power - 1]}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"
