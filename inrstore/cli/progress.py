"""What a running command shows on standard error: a bar for what is done, a line for each image under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from inrstore.archive.outcomes import ArchiveProgress, Step, StepCallback
from inrstore.cli.output import size_text
from inrstore.store.reports import JobProgress

_MOST_LINES = 12


@contextmanager
def progress(*, quiet: bool) -> Iterator[StepCallback | None]:
    """Show progress on standard error while a job runs, if a person is there to see it."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[psnr]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


class _Bars:
    """One bar for the whole job, and below it one for each image that is being converted."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._whole = self._add("starting")
        self._images: dict[str, TaskID] = {}

    def __call__(self, step: Step) -> None:
        if isinstance(step, JobProgress):
            self._image(self._whole, step.stage, step)
        else:
            self._archive(step)

    def _add(self, description: str) -> TaskID:
        return self._bars.add_task(description, total=1.0, count="", rate="", psnr="")

    def _image(self, task: TaskID, description: str, step: JobProgress) -> None:
        self._bars.update(
            task,
            completed=step.fraction,
            description=description,
            count=f"{step.chunks_done}/{step.chunks_total} chunks",
            rate=f"{step.mb_per_s:.2f} MB/s",
            psnr="" if step.psnr is None else f"{step.psnr:.1f} dB",
        )

    def _archive(self, step: ArchiveProgress) -> None:
        total = f"/{step.total:,}" if step.total else ""
        bad = f", [red]{step.failed:,} failed[/]" if step.failed else ""
        inside = sum(image.fraction for image in step.running.values())
        self._bars.update(
            self._whole,
            description=escape(step.stage),
            total=float(step.total) or None,
            completed=min(float(step.total or step.done), step.done + inside),
            count=f"{step.done:,}{total} files{bad}",
            rate=f"{size_text(step.bytes_done)} of {size_text(step.bytes_total)}" if step.bytes_total else "",
        )
        for key in self._images.keys() - step.running.keys():
            self._bars.remove_task(self._images.pop(key))
        for key, image in step.running.items():
            if key not in self._images:
                if len(self._images) >= _MOST_LINES:
                    continue
                self._images[key] = self._add(escape(key))
            self._image(self._images[key], f"  {escape(_short(key))}: {image.stage}", image)


def _short(key: str) -> str:
    return key if len(key) <= 48 else f"...{key[-45:]}"
