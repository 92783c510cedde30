"""Compiled loops: the bits and the errors of the numpy path; they come late, and nothing hangs on them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from checks import ROOT, digest, golden, index_of, vectors
from checks import VECTORS as FOLDER

from inrstore.chunk import frame
from inrstore.chunk.decode import decode_chunk, values_of
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inr.layers import Activation, Layer, _clamped
from inrstore.chunk.inr.network import Network, Values
from inrstore.chunk.kernels import choice
from inrstore.chunk.modes import BY_NUMBER
from inrstore.chunk.quality import Target
from inrstore.errors import CorruptChunkError
from inrstore.options import EncodeOptions

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="loops are compiled by numba")
VALID, FAULTY = vectors("subset", "uncommon"), vectors("faulty")
COMPILED = [name for name, entry in {**index_of(FOLDER / "subset"), **index_of(FOLDER / "uncommon")}.items()
            if entry["mode"] in ("transform", "predictor")]  # fmt: skip
DATA = ROOT.parent / "shared" / "data"


def outcome(data: bytes, compiled: bool, sealed: bool = True) -> tuple[str, ...]:
    """Return what a frame gives: the hash of its values, or the error and its field."""
    with choice.use(compiled):
        try:
            values = decode_chunk(data) if sealed else values_of(frame.unpack(data, known=BY_NUMBER))
        except CorruptChunkError as error:
            return type(error).__name__, error.field
    return values.dtype.str, str(values.shape), digest(values)


def check_equal_outcomes(data: bytes, sealed: bool = True) -> None:
    assert outcome(data, True, sealed) == outcome(data, False, sealed)


@needs_numba
def test_the_loops_are_there():
    with choice.use(True):
        assert all(choice.find(name, 1) is not None for name in choice._loops)


@needs_numba
@pytest.mark.parametrize("name", COMPILED)
def test_a_vector_gives_the_same_bits(name):
    check_equal_outcomes(VALID[name])
    assert len(outcome(VALID[name], True)) == 3


@needs_numba
@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_vector_gives_the_same_error(name):
    check_equal_outcomes(FAULTY[name])
    assert len(outcome(FAULTY[name], True)) == 2


@needs_numba
def test_golden_chunks_give_the_same_bits():
    for data in golden().values():
        check_equal_outcomes(data)


@needs_numba
@pytest.mark.parametrize("seed", range(20))
def test_damaged_payloads_give_the_same_bits_or_the_same_error(seed):
    rng = random.Random(seed)
    for name in COMPILED:
        data = bytearray(VALID[name])
        begin = frame.header_size(data[7]) + 4
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(begin, len(data) - 4)] = rng.randrange(256)
        data[-4:] = int(google_crc32c.value(bytes(data[:-4]))).to_bytes(4, "little")
        check_equal_outcomes(bytes(data), sealed=False)


def smooth(shape: tuple[int, ...], noise: float, seed: int = 1) -> np.ndarray:
    """Return an image with structure and noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    wave = sum(np.sin((3 + i) * a) for i, a in enumerate(axes))
    return (500 + 120 * wave + noise * rng.normal(size=shape)).astype(np.int16)


@needs_numba
@pytest.mark.parametrize("shape, noise", [((5, 9, 33, 47), 40), ((1, 40, 70, 90), 8), ((17, 3, 20, 31), 200),
                                          ((3, 130, 5, 6), 1), ((2, 1, 64, 64), 3000)])  # fmt: skip
def test_images_give_the_same_bits_lossless_and_lossy(shape, noise):
    image = smooth(shape, noise)
    image = image[0] if shape[0] == 1 else image
    options = EncodeOptions(mode="transform", preset="fast", threads=1)
    for target in (Target(lossless=True), Target(rmse=noise / 4), Target(rmse=3.0 * noise)):
        (data,) = encode_chunks([image], [target], options)
        check_equal_outcomes(data)


@needs_numba
@pytest.mark.real
@pytest.mark.parametrize("name", ["s02", "s07", "s09", "s12"])
def test_real_crops_give_the_same_bits(name):
    from inrstore.sources import read_source

    if not DATA.exists():
        pytest.skip("no real scans here")
    image = np.asarray(read_source(next(DATA.glob(f"sub-{name}*/*/*.nii.gz"))).voxels)
    middle = tuple(slice(n // 2 - w, n // 2 + w) for n, w in zip(image.shape[-3:], (8, 25, 28), strict=True))
    image = np.ascontiguousarray(image[(..., *middle)])
    for target in (Target(lossless=True), Target(rmse=float(np.ptp(image)) / 100)):
        (data,) = encode_chunks([image], [target], EncodeOptions(mode="transform", preset="fast", threads=1))
        check_equal_outcomes(data)


@needs_numba
def test_threads_give_the_same_bits():
    chunks = [VALID[name] for name in COMPILED]
    wanted = [outcome(data, False) for data in chunks]
    with choice.use(True), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: digest(decode_chunk(data)), chunks * 4))
    assert found == [each[-1] for each in wanted] * 4


# ---- other processes ---------------------------------------------------------------------------------------

DECODE = """
import sys, json, time
from pathlib import Path
import inrstore
assert "numba" not in sys.modules
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.kernels import choice
import hashlib
assert "numba" not in sys.modules
data = Path(sys.argv[1]).read_bytes()
values = decode_chunk(data)
hash = hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()
print(json.dumps([hash, "numba" in sys.modules, choice.find("transform", 0) is not None]))
"""


def decoded_apart(tmp_path: Path, code: str = DECODE, package: Path = ROOT, **environment: str) -> list:
    """Return what a process says of a decoded vector."""
    source = FOLDER / "subset" / f"{next(n for n in COMPILED if n.startswith('transform'))}.chunk"
    if not source.exists():
        source = next(FOLDER.glob("*/transform*.chunk"))
    whole = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(source)], env=whole, cwd=tmp_path,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_small_chunk_and_an_import_load_no_compiler(tmp_path):
    _, loaded, served = decoded_apart(tmp_path, INRSTORE_COMPILED="")
    assert not loaded and not served


def test_the_environment_turns_compiled_loops_off(tmp_path):
    _, loaded, served = decoded_apart(tmp_path, INRSTORE_COMPILED="0")
    assert not loaded and not served


def test_without_numba_numpy_serves(tmp_path):
    """Even where compiled loops are asked for."""
    hidden = "import sys; sys.modules['numba'] = None\nimport importlib.util as u; found = u.find_spec\n"
    hidden += "u.find_spec = lambda n, *a: None if n == 'numba' else found(n, *a)\n"
    code = hidden + DECODE.replace('assert "numba" not in sys.modules', "")
    got = decoded_apart(tmp_path, code, INRSTORE_COMPILED="1")
    assert got[0] == decoded_apart(tmp_path, INRSTORE_COMPILED="0")[0] and not got[2]


@needs_numba
@pytest.mark.slow
def test_loops_compile_where_the_package_cannot_be_written_nor_any_cache(tmp_path):
    """Read-only for everybody, root too: a file stands where the folder of the cache would be."""
    package = tmp_path / "site"
    shutil.copytree(ROOT / "inrstore", package / "inrstore", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "inrstore/chunk/kernels/__pycache__").write_text("")
    wanted = decoded_apart(tmp_path, INRSTORE_COMPILED="0")[0]
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "IPYTHONDIR": str(home)}
    for _ in range(2):  # cold, and with the cache of the user
        assert decoded_apart(tmp_path, package=package, INRSTORE_COMPILED="1", **places) == [wanted, True, True]
    assert list(home.rglob("*.nbi"))
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    places = {name: str(nowhere / "x") for name in places}
    assert decoded_apart(tmp_path, package=package, INRSTORE_COMPILED="1", **places) == [wanted, True, True]


@needs_numba
@pytest.mark.slow
def test_several_processes_compile_at_once(tmp_path):
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "INRSTORE_COMPILED": "1"}
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: decoded_apart(tmp_path, **places), range(2)))
    assert all(each == [found[0][0], True, True] for each in found)


@needs_numba
@pytest.mark.slow
def test_a_damaged_cache_is_made_anew(tmp_path):
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "INRSTORE_COMPILED": "1"}
    wanted = decoded_apart(tmp_path, **places)
    damaged = list((tmp_path / "cache").rglob("*subband*.nb?"))  # not all: each takes seconds to compile
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    assert decoded_apart(tmp_path, **places) == wanted


@needs_numba
@pytest.mark.slow
def test_what_is_not_compiled_soon_is_decoded_by_numpy(tmp_path):
    """A cold cache: the process goes on meanwhile, and its end waits for the loops."""
    code = DECODE.replace("data = Path", "choice._loops['transform']._enough = 1; choice._PATIENCE = 0.05\ndata = Path")
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "INRSTORE_COMPILED": ""}
    hash_, _, served = decoded_apart(tmp_path, code, **places)
    assert not served and hash_ == decoded_apart(tmp_path, INRSTORE_COMPILED="0")[0]
    assert list((tmp_path / "cache").rglob("*decode_subband*.nbi"))
    assert decoded_apart(tmp_path, code.replace("0.05", "30"), **places) == [hash_, True, True]


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_forked_while_loops_load_decodes_by_numpy(tmp_path):
    forked = """
import os, warnings
warnings.simplefilter("ignore")
choice._loops["transform"]._enough = 1; choice._PATIENCE = 0.2
decode_chunk(data)
child = os.fork()
values = decode_chunk(data)
if child == 0:
    os._exit(0 if choice.find("transform", 1 << 30) is None else 3)
assert os.waitpid(child, 0)[1] == 0
"""
    code = DECODE.replace("values = decode_chunk(data)", forked) + "sys.stdout.flush(); os._exit(0)\n"
    decoded_apart(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache"), INRSTORE_COMPILED="")


@needs_numba
def test_an_activation_that_the_loops_do_not_know_is_evaluated_by_numpy():
    """A new one is never taken for another."""
    cut, numbers = Activation(200, "cut", False, _clamped(500)), np.random.default_rng(4)
    layer = Layer(cut, numbers.integers(-15, 16, (6, 2)), numbers.integers(-15, 16, 6), 1 << 22)
    network = Network(Values(2, 1023), (layer,), 1 << 22, numbers.integers(-15, 16, (1, 6)), np.array([3]),
                      np.array([1]), 8)  # fmt: skip
    what = Correction((2, 2), (), np.zeros((0, 3), np.int64), network)
    volumes = numbers.integers(-4000, 4000, (2, 3, 40, 50)).astype(float)
    results = []
    for compiled in (False, True):
        with choice.use(compiled):
            results.append(volumes.copy())
            what.apply(results[-1])
    assert np.array_equal(*results) and not np.array_equal(results[0], volumes)
