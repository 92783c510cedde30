"""One chunk: array <-> frame, with numpy alone; no files, no torch but in `inr.fit` (specs/inrstore-1.md).

`encode` and `decode` are the two doors, each the mirror of the other: frame, envelope, mode. `modes` is the one list of
modes, each a package with its decoder beside its encoder; `entropy` serves them all.
"""
