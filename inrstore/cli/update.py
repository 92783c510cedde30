"""`inrstore update`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from inrstore.cli import output
from inrstore.cli.log import LogFile, logged
from inrstore.cli.options import DeviceName, DryRun, Json, PresetName, Unmatched
from inrstore.cli.progress import progress

if TYPE_CHECKING:
    from inrstore.archive.changes import UpdatePlan

_Globs = list[str] | None


def update(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Path or URL of the source.", show_default=False)],
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Path or URL.", show_default=False)],
    psnr: Annotated[float | None, typer.Option(metavar="DB", help="Another quality.", show_default=False)] = None,
    rmse: Annotated[float | None, typer.Option(metavar="R", help="Another quality.", show_default=False)] = None,
    max_error: Annotated[float | None, typer.Option(metavar="E", help="Another quality.", show_default=False)] = None,
    noise: Annotated[float | None, typer.Option(metavar="K", help="Another quality.", show_default=False)] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Another quality.")] = False,
    preserve: Annotated[
        str | None, typer.Option(metavar="MEASURE[=BOUND]", help="Another quality, with --only.", show_default=False)
    ] = None,
    preset: Annotated[PresetName | None, typer.Option(help="Another effort.", show_default=False)] = None,
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="Another mask.", show_default=False)] = None,
    shared: Annotated[
        _Globs,
        typer.Option(metavar="FILE", help="The shared networks it was made with, or others.", show_default=False),
    ] = None,
    only: Annotated[
        _Globs,
        typer.Option(metavar="GLOB", help="Quality, preset and mask are for these images alone.", show_default=False),
    ] = None,
    include: Annotated[
        _Globs, typer.Option(metavar="GLOB", help="Another selection of files.", show_default=False)
    ] = None,
    exclude: Annotated[_Globs, typer.Option(metavar="GLOB", help="Other exclusions.", show_default=False)] = None,
    rules: Annotated[str | None, typer.Option(metavar="FILE", help="Other rules (TOML).", show_default=False)] = None,
    force: Annotated[
        _Globs, typer.Option(metavar="GLOB", help="Make these anew though nothing changed.", show_default=False)
    ] = None,
    restore: Annotated[
        _Globs, typer.Option(metavar="GLOB", help="Take these in again after `remove`.", show_default=False)
    ] = None,
    reread: Annotated[bool, typer.Option("--reread", help="Compare contents, not sizes and times.")] = False,
    allow_gone: Annotated[
        bool, typer.Option("--allow-gone", help="Exit code 0 though the source lacks what the archive has.")
    ] = False,
    allow_unmatched: Unmatched = False,
    device: Annotated[DeviceName, typer.Option(help="Where networks are fitted.")] = DeviceName.auto,
    report: Annotated[str | None, typer.Option(metavar="FILE", help="HTML page to write.", show_default=False)] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on a dask scheduler's workers.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Work on N processes.", show_default=False)] = None,
    dry_run: DryRun = False,
    log: LogFile = None,
    as_json: Json = False,
) -> None:
    """Convert what is new in the source, and anew what changed; all as asked when the archive was made.

    What the source has not any more stays in the archive, and the exit code is 1; `prune` removes it.
    """

    def tell(plan: UpdatePlan) -> None:
        if not as_json:
            output.show_plan(plan)

    with output.errors(as_json), logged(log), progress(quiet=as_json) as step:
        from inrstore import api

        result = api.update(
            source, archive, psnr=psnr, rmse=rmse, max_error=max_error, noise=noise, preserve=preserve,
            lossless=lossless,
            preset=None if preset is None else preset.value, mask=mask, include=include, exclude=exclude, rules=rules,
            shared=shared or (), only=only or (), force=force or (),
            restore=restore or (), reread=reread, allow_unmatched=allow_unmatched,
            device=device.value, dry_run=dry_run, show=tell, report=report, scheduler=scheduler, workers=workers,
            progress=step,
        )  # fmt: skip
    output.show(result, as_json)
    output.exit_of(result, allow_gone=allow_gone)
