"""Write the conformance vectors of the chunk format, and the golden chunks of a release.

python -m tools.vectors [--new-version]

The golden chunks are written once; afterwards a difference is an error, unless `--new-version` says that the
format itself is new and has not been released.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .faulty import faulty
from .neural import shared_neural
from .subset import subset
from .superres import shared_superres
from .transform_valid import shared_transform
from .uncommon import uncommon
from .write import VECTORS, check_refused, collect, describe, write_folder, write_golden


def main(arguments: Sequence[str] | None = None) -> int:
    """Write everything."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.vectors", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--new-version", action="store_true", help="write the golden chunks of an unreleased format anew"
    )
    options = parser.parse_args(arguments)

    valid = {"subset": collect(subset), "uncommon": collect(uncommon)}
    for folder, frames in valid.items():
        write_folder(VECTORS / folder, frames, {name: describe(data) for name, data in frames.items()})
    lent = {name: (data, shared) for name, data, shared in (*shared_neural(), *shared_transform(), *shared_superres())}
    write_folder(VECTORS / "shared", {name: data for name, (data, _) in lent.items()},
                 {name: describe(data, shared) for name, (data, shared) in lent.items()})  # fmt: skip
    bad: dict[str, bytes] = {}
    index: dict[str, dict[str, Any]] = {}
    for name, data, error, field in faulty():
        check_refused(name, data, error, field)
        if name in bad:
            raise SystemExit(f"{name}: twice")
        bad[name], index[name] = data, {"error": error, "field": field}
    write_folder(VECTORS / "faulty", bad, index)
    write_golden(valid["subset"] | valid["uncommon"], new_version=options.new_version)
    for folder, frames in (*valid.items(), ("faulty", bad)):
        sizes = [len(d) for d in frames.values()]
        print(f"{folder}: {len(sizes)} frames, {sum(sizes)} bytes, largest {max(sizes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
