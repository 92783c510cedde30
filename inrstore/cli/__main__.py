"""`python -m inrstore.cli`."""

from inrstore.cli import main

main()
