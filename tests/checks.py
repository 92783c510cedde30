"""Shared by the tests of format and codecs: vectors, hashes, subprocesses (numpy and the package only)."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "specs" / "vectors"
GOLDEN = ROOT / "tests" / "golden"

DTYPES = tuple("|b1 |i1 |u1 <i2 <u2 <i4 <u4 <i8 <u8 <f2 <f4 <f8 >i2 >u2 >i4 >u4 >i8 >u8 >f2 >f4 >f8".split())
"""Every dtype that the format holds."""


def index_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the index of a folder of frames."""
    return json.loads((folder / "index.json").read_text())


def frames_of(folder: Path) -> dict[str, bytes]:
    """Return the frames of a folder by name."""
    return {name: (folder / f"{name}.chunk").read_bytes() for name in index_of(folder)}


def vectors(*folders: str) -> dict[str, bytes]:
    """Return the vectors of some of the folders subset, uncommon and faulty."""
    return {name: data for folder in folders for name, data in frames_of(VECTORS / folder).items()}


def modes() -> dict[str, str]:
    """Return the mode of every valid vector."""
    both = {**index_of(VECTORS / "subset"), **index_of(VECTORS / "uncommon")}
    return {name: entry["mode"] for name, entry in both.items()}


def golden(version: int = 1) -> dict[str, bytes]:
    """Return the golden chunks of a version of the format."""
    return frames_of(GOLDEN / str(version))


def little_bytes(values: npt.NDArray[Any]) -> bytes:
    """Return the values as little-endian bytes in C order."""
    return np.asarray(values, values.dtype.newbyteorder("<"), order="C").tobytes()


def digest(values: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of the values as little-endian bytes in C order."""
    return hashlib.sha256(little_bytes(values)).hexdigest()


def check_equal_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    """Check shape, type (byte order apart) and every bit of two arrays."""
    assert one.shape == other.shape
    assert one.dtype.newbyteorder("<") == other.dtype.newbyteorder("<")
    assert little_bytes(one) == little_bytes(other)


def load(path: Path, name: str) -> ModuleType:
    """Import a file that is no part of the package; skip the test when it is not there."""
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is not here")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def maker(room: str = "frames") -> ModuleType:
    """Return a module of tools/vectors; `frames` makes, edits and reseals frames."""
    package = load(ROOT / "tools" / "vectors" / "__init__.py", "inrstore_vectors")
    return importlib.import_module(f"{package.__name__}.{room}")


def decoder() -> ModuleType:
    """Return specs/decoder.py, the reader that shares no code with the package."""
    return load(ROOT / "specs" / "decoder.py", "inrstore_decoder")


def fuzzer() -> ModuleType:
    """Return tools/fuzz_chunks.py."""
    return load(ROOT / "tools" / "fuzz_chunks.py", "fuzz_chunks")


DECODE_ALL = """
import hashlib, sys
import numpy as np
from inrstore.chunk.decode import decode_chunk
total = hashlib.sha256()
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        values = decode_chunk(file.read())
    total.update(np.asarray(values, values.dtype.newbyteorder("<"), order="C").tobytes())
print(total.hexdigest())
"""
"""For `run_python`: prints one hash of what the frames in all files given decode to."""


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """Run code in a fresh interpreter outside the checkout, warnings being errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, cwd=os.path.dirname(sys.executable), timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def random_values(shape: tuple[int, ...], dtype: str, seed: int, kind: str) -> npt.NDArray[Any]:
    """Return an array of one of several characters; every bit pattern of the type is possible.

    Parameters
    ----------
    kind : str
        "noise" (any bits), "smooth", "few" (three bit patterns), "constant", "border" (noise in a constant frame),
        "holes" (smooth with non-finite values, or extremes of integers).
    """
    rng, native = np.random.default_rng(seed), np.dtype(dtype)
    little = native.newbyteorder("<")
    count = int(np.prod(shape, dtype=np.int64))

    def noise(n: int) -> npt.NDArray[Any]:
        if little.kind == "b":
            return rng.random(n) < 0.5
        return np.frombuffer(rng.bytes(n * little.itemsize), little)

    def smooth() -> npt.NDArray[Any]:
        total = np.full(shape, 40.0)
        for axis, n in enumerate(shape):
            total += (20 * np.sin(np.arange(n) / 3 + axis)).reshape([n if a == axis else 1 for a in range(len(shape))])
        return total.astype(little)

    if kind == "noise":
        values = noise(count).reshape(shape)
    elif kind == "few":
        values = noise(3)[rng.integers(0, 3, shape)]
    elif kind == "constant":
        values = np.full(shape, noise(1)[0], little)
    elif kind == "border":
        values = np.full(shape, noise(1)[0], little)
        inside = tuple(slice(int(n > 2), max(1, n - 1)) for n in shape)
        values[inside] = noise(values[inside].size).reshape(values[inside].shape)
    else:
        values = smooth()
        if kind == "holes" and count:
            places = rng.random(shape) < 0.2
            if little.kind == "f":
                odd = np.array([np.nan, np.inf, -np.inf, -0.0], little)
            elif little.kind == "b":
                odd = np.array([True], little)
            else:
                odd = np.array([np.iinfo(little).min, np.iinfo(little).max], little)
            values = np.where(places, odd[rng.integers(0, len(odd), shape)], values)
    return np.array(values, native)


KINDS = ("noise", "smooth", "few", "constant", "border", "holes")


@st.composite
def any_array(draw: Any, dtypes: tuple[str, ...] = DTYPES) -> npt.NDArray[Any]:
    """Return an array of any dtype, of up to four axes of length 0 to 9, in C or Fortran order."""
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    values = random_values(
        shape, draw(st.sampled_from(dtypes)), draw(st.integers(0, 2**32)), draw(st.sampled_from(KINDS))
    )
    return np.asfortranarray(values) if draw(st.booleans()) and values.ndim > 1 else values


def examples(count: int) -> Any:
    """Return the settings of a property test: always the same examples, that many."""
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
