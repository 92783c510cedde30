"""`inrstore view` and `inrstore compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output

NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address, and open nothing.")]


def view(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE", help="Path or URL of a store, an archive, or an image of it.", show_default=False
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="ORIGINAL",
            help="What it was made from: original, decoded and error side by side.",
            show_default=False,
        ),
    ] = None,
    no_browser: NoBrowser = False,
) -> None:
    """Show a store, or the images of an archive, in the browser, until Ctrl-C."""
    with output.errors(False):
        from inrstore.views import browser

        where, image = browser.parted(store)
        browser.show(where, image=image, source=source, ready=output.address, tell=output.note, open_it=not no_browser)


def compare(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The image that they were made from.", show_default=False)
    ],
    stores: Annotated[
        list[str],
        typer.Argument(metavar="STORE...", help="Stores of it, at most six: paths or URLs.", show_default=False),
    ],
    no_browser: NoBrowser = False,
) -> None:
    """Show an image and several stores of it side by side in the browser, with bytes, PSNR and errors, until Ctrl-C."""
    with output.errors(False):
        from inrstore.views import browser

        browser.show(stores, source=source, ready=output.address, tell=output.note, open_it=not no_browser)
