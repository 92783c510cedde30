"""A store, an archive or an image of it -> its page in the browser of whoever asks for it."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Callable, Sequence
from urllib.parse import quote

from inrstore import files
from inrstore.archive.record import is_archive
from inrstore.views import serve


def parted(where: str) -> tuple[str, str]:
    """Return a store or an archive, and of the archive which image, "" for none.

    Parameters
    ----------
    where : str
        A path or URL. One that leads into an archive of this machine, and to nothing there, names an image as its
        source had it: archive/sub-01/anat/sub-01_T1w.nii.gz.
    """
    if files.is_url(where) or os.path.lexists(where):
        return where, ""
    folder, image = os.path.split(os.path.abspath(where))
    while folder != os.path.dirname(folder):
        if os.path.isdir(folder) and is_archive(files.place(folder)):
            return folder, image.replace(os.sep, "/")
        folder, last = os.path.split(folder)
        image = os.path.join(last, image)
    return where, ""


def show(
    where: str | Sequence[str],
    *,
    ready: Callable[[str], None],
    image: str = "",
    source: str | None = None,
    tell: Callable[[str], None] | None = None,
    open_it: bool = True,
) -> None:
    """Serve what a page needs on a free port of this machine until SIGINT or SIGTERM; in the main thread.

    Parameters
    ----------
    where : str or sequence of str
        Store or archive; several stores are compared.
    ready : callable
        Called with the address of the page.
    image : str
        Of an archive, which image the page opens with.
    source : str, optional
        What it was made from.
    tell : callable, optional
        Called with a line for each thing that went wrong.
    open_it : bool
        Whether the browser is told to open the page.

    Raises
    ------
    StoreError, ConfigurationError, MissingDependencyError
        As `inrstore.views.serve.Server`.
    """

    def begin(url: str) -> None:
        address = f"{url}#{quote(image, safe='')}" if image else url
        ready(address)
        if open_it and not webbrowser.open(address) and tell is not None:
            tell("no browser could be opened; open the address in one")

    serve.serve(where, port=0, source=source, origin="", tell=tell, ready=begin)
