"""The process in which `tools.fuzz_apart` has damaged chunks decoded: reads and answers lines of JSON."""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import warnings
from typing import Any

import numpy as np

from tools import fuzz_chunks

MEMORY = 6 << 30
"""Address space of the process: a case that wants more fails."""


def answer(case: dict[str, Any]) -> dict[str, Any]:
    """Return what comes of a case.

    Parameters
    ----------
    case : dict
        `frame` in hexadecimal digits; `key`, a seed of chance; `shape` and `dtype` of the array; `both`, whether the
        independent reader decodes it, too.
    """
    data, kind = bytes.fromhex(case["frame"]), np.dtype(case["dtype"])
    base = fuzz_chunks.Base("", b"", tuple(case["shape"]), kind)
    begin, out = time.process_time(), dict[str, Any]()
    try:
        out["outcome"] = fuzz_chunks.try_case(random.Random(case["key"]), base, data)  # noqa: S311
        out["seconds"] = time.process_time() - begin
        if case["both"]:
            out["both"] = fuzz_chunks.agree(fuzz_chunks.reader(), data)
    except Exception as error:
        out |= {"outcome": f"FAILED: {type(error).__name__}", "error": repr(error)[:300]}
        out.setdefault("seconds", time.process_time() - begin)
    return out | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> int:
    """Answer cases until there are no more."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
