"""What the commands print: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from inrstore.archive.export import ExportReport
from inrstore.archive.reports import (
    ConvertReport,
    InfoReport,
    JobCallback,
    JobProgress,
    StoreReport,
    VerifyReport,
)
from inrstore.errors import ConfigurationError, InrstoreError

_SHOWN_CHUNKS = 12


class _Report(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=_Report)


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn an error into one line on standard error and an exit code: 2 for wrong options, 1 for the rest."""
    try:
        yield
    except (InrstoreError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"inrstore: {text}", err=True)
        if as_json:
            typer.echo(json.dumps({"error": text, "kind": type(error).__name__}))
        raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from None
    except KeyboardInterrupt:
        typer.echo("inrstore: interrupted; nothing was left behind", err=True)
        raise typer.Exit(130) from None


@contextmanager
def progress(*, quiet: bool) -> Iterator[JobCallback | None]:
    """Show progress on standard error while a job runs, if a person is there to see it."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[chunks]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[psnr]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0, chunks="", rate="", psnr="")

        def show(step: JobProgress) -> None:
            bar.update(
                task,
                completed=step.fraction,
                description=step.stage,
                chunks=f"{step.chunks_done}/{step.chunks_total} chunks",
                rate=f"{step.mb_per_s:.2f} MB/s",
                psnr="" if step.psnr is None else f"{step.psnr:.1f} dB",
            )

        yield show


def show(report: R, as_json: bool, text: Callable[[R], str]) -> None:
    """Print a result, as one JSON object or for people."""
    typer.echo(json.dumps(report.to_dict(), allow_nan=False) if as_json else text(report))


def convert_text(report: ConvertReport) -> str:
    """Return the result of a conversion."""
    time = f"{_seconds(report.seconds)}, {report.mb_per_s:.2f} MB/s"
    return f"{report.store}\n{_lines(report)}\n  time      {time}"


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
        f"  chunks    {' x '.join(map(str, report.chunk_shape))}, {_bytes(report.image_bytes)} together"
    )
    for chunk in report.chunk_list[:_SHOWN_CHUNKS]:
        details = ", ".join(f"{key} {value}" for key, value in chunk.items() if key not in ("key", "mode", "bytes"))
        text += f"\n    {chunk['key']}  {chunk['mode']}  {chunk['bytes']:,} bytes  {details}".rstrip()
    hidden = len(report.chunk_list) - _SHOWN_CHUNKS
    return text + (f"\n    ... {hidden} more" if hidden > 0 else "")


def export_text(report: ExportReport) -> str:
    """Return the result of an export."""
    size, rate = _bytes(report.file_bytes), f"{report.mb_per_s:.1f} MB/s"
    return f"{report.file}: {size} in {_seconds(report.seconds)}, {rate}"


def _lines(report: StoreReport) -> str:
    asked = ", ".join(name if value is True else f"{name} {value:g}" for name, value in report.promised.items())
    modes = ", ".join(f"{count} {mode}" for mode, count in sorted(report.modes.items()))
    if report.lossless:
        quality = "every bit kept"
    else:
        psnr = "exact" if report.psnr is None else f"PSNR {report.psnr:.2f} dB"
        spread = "" if report.psnr_range is None else f" ({report.psnr_range:.2f} dB over the whole range)"
        quality = f"{psnr}{spread}, rmse {report.rmse:.4g}, largest error {report.max_error:g}"
    return (
        f"  size      {_bytes(report.stored_bytes)} for {_bytes(report.source_bytes)} of voxels:"
        f" {report.ratio:.1f} : 1\n"
        f"  quality   {quality}; promised: {asked}\n"
        f"  modes     {modes} of {report.chunks} chunks"
    )


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    power = min(3, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.{2 if power > 1 else 1}f} {('kB', 'MB', 'GB')[power - 1]}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"
