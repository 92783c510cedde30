"""The command line: parse, call, print."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `inrstore` command."""
    try:
        import rich
        import typer  # noqa: F401

        del rich
    except ImportError:
        print('inrstore: the command line needs typer and rich: pip install "inrstore[cli]"', file=sys.stderr)
        raise SystemExit(1) from None
    from inrstore.cli.app import app

    app(prog_name="inrstore")
