"""The predictor keeps every bit of whatever it takes, on every machine, and is worth its place."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from checks import ROOT, check_equal_bits, examples, random_values, run_python
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import decode as chunks
from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.decode import decode_chunk, decode_region, describe_chunk
from inrstore.chunk.encode import encode_as, encode_chunks, seal
from inrstore.chunk.predictor import encode as predictor
from inrstore.chunk.predictor import encode_regions as predictor_regions
from inrstore.chunk.predictor import layout as layouts
from inrstore.chunk.quality import Target

LOSSLESS = Target(lossless=True)
HELD = tuple("|i1 |u1 <i2 <u2 <i4 <u4 <f2 <f4 >i2 >u4 >f4".split())
NOT_HELD = tuple("<i8 <u8 <f8 |b1".split())
DATA = ROOT.parent / "shared" / "data"


def size_without_model(values: np.ndarray) -> int:
    """Return the bytes of the smaller one of the modes without a model."""
    return min(len(encode_as(mode, values)) for mode in (modes.BYTEPLANES, modes.RAW))


def predicted(values: np.ndarray, mask: np.ndarray | None = None) -> bytes | None:
    """Return the frame of the predictor alone, however small the array is."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    core, envelope = envelopes.crop(little, mask)
    payload = predictor.encode(core, envelope.mask)
    if payload is None:
        return None
    return seal(modes.PREDICTOR, values, envelopes.write(envelope, values.shape) + payload, values)


def check_kept(values: np.ndarray) -> bool:
    """Check that the predictor keeps an array bit for bit; return whether it takes it at all."""
    data = predicted(values)
    if data is None:
        return False
    assert describe_chunk(data).mode == "predictor"
    check_equal_bits(decode_chunk(data, values.shape, values.dtype), values)
    return True


def scan(shape: tuple[int, ...], dtype: str = "<i2", noise: float = 9.0, seed: int = 0) -> np.ndarray:
    """Return smooth blobs with noise on a background of zeros: (.., z, y, x)."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in shape[-3:]], indexing="ij")
    radius = sum(a * a for a in axes)
    image = 900 * np.exp(-radius) * (1 + 0.3 * np.sin(5 * axes[-1]) * np.cos(4 * axes[-2]))
    out = image * rng.uniform(0.5, 1, shape[:-3])[..., None, None, None] if len(shape) > 3 else image
    out = (out + rng.normal(0, noise, shape)) * (radius < 1.4)
    return np.rint(out).clip(0).astype(dtype)


def scan_of_two_textures(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Return an image whose left half is as rough along rows as its right half is along columns."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 30, shape)
    along = np.cumsum(np.where(rng.random(shape) < 0.2, noise, 0), 2)
    across = np.cumsum(np.where(rng.random(shape) < 0.2, noise, 0), 1)
    half = np.arange(shape[2]) < shape[2] // 2
    return np.rint(np.where(half, along, across) + 9 * rng.random(shape)).astype("<i2")


# ---- every bit ---------------------------------------------------------------------------------------------


@st.composite
def arrays(draw) -> np.ndarray:
    """Return an array of a type the predictor may take, of one to five axes."""
    shape = draw(st.lists(st.sampled_from([1, 1, 2, 3, 5, 8, 13]), min_size=1, max_size=5).map(tuple))
    while np.prod(shape) > 4000:
        shape = shape[1:]
    kind = draw(st.sampled_from(["noise", "smooth", "few", "constant", "border", "holes", "scan"]))
    dtype, seed = draw(st.sampled_from(HELD)), draw(st.integers(0, 2**32))
    if kind == "scan":
        return scan((1,) * (3 - len(shape)) + shape, dtype if dtype[1:] != "i1" else "<i2", seed=seed).reshape(shape)
    values = random_values(shape, dtype, seed, kind)
    return np.asfortranarray(values) if draw(st.booleans()) else values


@given(arrays())
@examples(150)
def test_every_bit_of_small_arrays_is_kept(values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "SMALLEST", 1)
        patch.setattr(predictor, "_LEAST_PER_STAGE", 1)
        taken = check_kept(values)
    assert taken or values.dtype.itemsize == 4  # a range above 65535 is left to planes


@pytest.mark.parametrize("dtype", HELD)
def test_the_whole_range_of_a_type_is_kept(dtype):
    rng = np.random.default_rng(3)
    for shape in ((60, 41), (3, 8, 9, 16), (2700,)):
        wide = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
        assert check_kept(wide) == (np.dtype(dtype).itemsize < 4)
        if np.dtype(dtype).kind != "f":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            ends = [low, low + min(65535, high - low)], [high - min(65535, high - low), high]
            for pair in ends:
                assert check_kept(rng.choice(np.array(pair, dtype), shape))


def test_floats_are_kept_bit_for_bit():
    rng = np.random.default_rng(5)
    odd = np.array([0x7E01, 0xFE01, 0x7C00, 0xFC00, 0x8000, 0x0000, 0x0001, 0x7DFF], "<u2").view("<f2")
    assert check_kept(odd[rng.integers(0, len(odd), (19, 18, 17))])  # NaN payloads, signalling too, infinities, -0.0
    counts = rng.normal(700, 60, (6, 20, 20)).round().clip(1, None).astype("<f4")
    assert check_kept(counts)  # float32 of whole numbers: the unused bits are one common step
    assert check_kept(np.float32(1) + rng.integers(0, 60000, (15, 16, 17)).astype("<f4") * np.float32(2.0**-23))
    assert not check_kept(rng.normal(0, 1, (6, 20, 20)).astype("<f4"))


@pytest.mark.parametrize("dtype", NOT_HELD)
def test_other_types_are_left_to_planes(dtype):
    values = random_values((16, 16, 16), dtype, 1, "smooth")
    data = encode_chunks([values], LOSSLESS)[0]
    assert describe_chunk(data).mode != "predictor"
    check_equal_bits(decode_chunk(data), values)


@pytest.mark.parametrize(
    "shape", [(5000,), (100_000,), (1, 9000), (9000, 1), (70, 90), (1, 1, 1, 3000), (300, 1, 5, 7), (2, 3, 4, 10, 12),
              (17, 1, 40, 40), (3, 200, 5, 5)]
)  # fmt: skip
def test_every_shape_is_kept(shape, monkeypatch):
    monkeypatch.setattr(predictor, "_LEAST_PER_STAGE", 1)
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.integers(-3, 4, int(np.prod(shape)))).reshape(shape).astype("<i4")
    assert check_kept(walk)
    assert check_kept(np.where(rng.random(shape) < 0.5, 0, walk).astype("<i2"))


def test_single_planes_that_are_constant_and_noise_are_kept():
    rng = np.random.default_rng(2)
    values = scan((8, 24, 24))
    values[3], values[4] = 77, 0
    values[6] = rng.integers(-32768, 32767, (24, 24))
    assert check_kept(values)
    values = np.stack([values] * 5)
    values[2] = -5
    assert check_kept(values)
    assert check_kept(np.zeros((14, 15, 16), "<i2"))


def test_empty_arrays_and_scalars_never_reach_the_predictor():
    for shape in ((), (0,), (4, 0, 3), (1,)):
        data = encode_chunks([np.zeros(shape, "<i2")], LOSSLESS)[0]
        assert decode_chunk(data).shape == shape


def test_many_planes_are_decoded_in_blocks():
    """More values than one block holds, in few and in very many planes."""
    assert check_kept(scan((3, 450, 450)))
    assert check_kept(np.random.default_rng(0).integers(0, 9, (40, 5000, 2, 2)).astype("u1"))


# ---- weights by place ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from(["<i2", "|u1", "<f2"]), st.booleans())
@examples(25)
def test_every_bit_is_kept_with_regions_of_any_size(seed, dtype, zeros):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in (rng.integers(1, 7), rng.integers(16, 70), rng.integers(16, 70)))
    values = scan_of_two_textures(shape, seed)
    values = np.where(rng.random(shape[1:]) < 0.3, 0, values).astype(dtype) if zeros else values.astype(dtype)
    sides = tuple(int(rng.integers(16, n + 1)) for n in shape[1:])

    def place(layout, whole):
        rows, columns = layout.lengths[2:]
        some = (sides[1], sides[0]) if layout.swap else sides
        region = min(some[0], rows), min(some[1], columns)
        return replace(layout, row_parts=1, column_parts=1, region=region)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "SMALLEST", 1)
        patch.setattr(predictor, "_LEAST_PER_STAGE", 1)
        patch.setattr(predictor, "with_places", place)
        patch.setattr(predictor, "lanes_of", lambda values, size: int(rng.integers(0, 13)))
        patch.setattr(predictor_regions, "_BITS_PER_WEIGHT", -100)  # so that regions always pay
        assert check_kept(values)


def test_weights_by_place_make_an_image_of_two_textures_smaller(monkeypatch):
    monkeypatch.setattr(predictor, "_LEAST_PER_STEP", 1)
    values = scan_of_two_textures((6, 128, 256))
    with_regions = predicted(values)
    check_equal_bits(decode_chunk(with_regions), values)
    monkeypatch.setattr(predictor, "_LEAST_FOR_REGIONS", 1 << 40)
    assert len(with_regions) < 0.97 * len(predicted(values))


def test_an_image_of_one_texture_has_no_regions(monkeypatch):
    monkeypatch.setattr(predictor, "_LEAST_PER_STEP", 1)
    rng = np.random.default_rng(0)
    values = np.rint(np.cumsum(rng.normal(0, 9, (6, 128, 256)), 2)).astype("<i2")
    payload = predictor.encode(values)
    assert payload is not None
    assert not payload[0] & 4


# ---- masks and parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 30, 28), (6, 8, 40, 42)])
def test_a_mask_is_kept_and_zero_is_read_outside(shape):
    rng = np.random.default_rng(4)
    values = scan(shape, noise=20) + np.int16(1)
    mask = scan(shape[-3:], noise=0) > 300
    outside = np.where(mask, values, rng.integers(-30000, 30000, shape)).astype("<i2")
    data = encode_chunks([outside], LOSSLESS, masks=[mask])[0]
    assert describe_chunk(data).mode == "predictor"
    check_equal_bits(decode_chunk(data), np.where(mask, values, 0).astype("<i2"))
    assert (chunks.decode_inside(data) == mask).all()
    assert len(data) < len(encode_chunks([values], LOSSLESS)[0])


def test_a_part_is_the_slice_of_the_whole():
    values = scan((4, 6, 20, 22))
    data = predicted(values)
    for selection in ((0, slice(None), 3, slice(2, 9)), (slice(None, None, 2), 1, slice(5, 6), -1)):
        check_equal_bits(np.asarray(decode_region(data, selection)), np.asarray(values[selection]))


# ---- worth -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(10, 64, 64), (12, 8, 32, 32)])
def test_scans_are_smaller_than_with_planes(shape):
    values = scan(shape, noise=12)
    best = encode_chunks([values], LOSSLESS)[0]
    assert describe_chunk(best).mode == "predictor"
    assert len(best) < 0.8 * size_without_model(values)


def test_no_frame_is_larger_than_raw_by_more_than_64_bytes():
    rng = np.random.default_rng(6)
    for dtype in ("|u1", "<i2", "<u2", "<f2", "<f4"):
        noise = np.frombuffer(rng.bytes(8000 * np.dtype(dtype).itemsize), dtype).reshape(20, 20, 20)
        data = encode_chunks([noise], LOSSLESS)[0]
        assert len(data) <= noise.nbytes + 64
        check_equal_bits(decode_chunk(data), noise)


def test_a_target_that_is_exact_anyway_uses_the_predictor_too():
    values = scan((10, 32, 32), noise=12)
    data = encode_chunks([values], Target(max_error=0.5))[0]
    assert describe_chunk(data).mode == "predictor"
    check_equal_bits(decode_chunk(data), values)


def test_a_few_values_are_not_worth_a_try():
    values = scan((5, 10, 10))
    assert values.size < predictor.SMALLEST and predicted(values) is None


# ---- machines ----------------------------------------------------------------------------------------------

_DECODE = """
import ctypes, glob, hashlib, os, sys
import numpy as np
from inrstore.chunk.decode import decode_chunk
total = hashlib.sha256()
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        total.update(decode_chunk(file.read()).tobytes())
libraries = glob.glob(os.path.join(os.path.dirname(np.__file__), os.pardir, "numpy.libs", "*openblas*"))
kernel = b"?"
if libraries:
    ask = getattr(ctypes.CDLL(libraries[0]), "scipy_openblas_get_corename64_", None)
    if ask is not None:
        ask.restype = ctypes.c_char_p
        kernel = ask()
print(total.hexdigest(), kernel.decode())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Return files of frames whose sums come close to the limits of exactness, and of common ones."""
    rng = np.random.default_rng(8)
    wild = np.cumsum(np.cumsum(rng.normal(0, 1, (6, 60, 60)), 1), 2)
    wild = ((wild - wild.min()) * (65535 / np.ptp(wild))).astype("<u2")
    images = [scan((6, 64, 64)), scan((30, 6, 24, 24), noise=20), wild, np.stack([wild, wild // 3, 65535 - wild])]
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path_factory.mktemp("frames") / f"{i}.chunk")
        paths[-1].write_bytes(predicted(image))
    return [str(p) for p in paths]


def test_bits_are_equal_for_every_kernel_and_number_of_threads(files):
    hashes, kernels = set(), set()
    for kernel, threads in itertools.product(("Haswell", "Zen", "SkylakeX", "Sandybridge"), "12"):
        answer = run_python(
            _DECODE, *files, OPENBLAS_CORETYPE=kernel, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads
        )
        bits, ran = answer.split(" ", 1)
        hashes.add(bits)
        kernels.add(ran)
    assert len(hashes) == 1  # each frame carries the checksum of its values, too
    assert len(kernels) >= 3 or kernels == {"?"}, kernels


# ---- layout ------------------------------------------------------------------------------------------------


def test_groups_and_stages_hold_everything_once():
    for total in (*range(1, 70), 4096):
        parts = layouts.groups(total)
        assert [i for g in parts for i in g] == list(range(total))
        assert all(len(g) <= max(1, min(16, g.start)) for g in parts)
    for slices, top in itertools.product(range(1, 40), (1, 2, 4, 8)):
        known: set[int] = set()
        for members, distance in layouts.stages(slices, top):
            if distance:
                below, above = layouts.beside(members, distance, slices)
                assert {*below.tolist(), *above.tolist()} <= known
            assert not known & set(members.tolist())
            known |= set(members.tolist())
        assert known == set(range(slices))


# ---- real scans --------------------------------------------------------------------------------------------


@cache
def real(name: str) -> np.ndarray:
    """Return the stored voxels of a real scan, (.., z, y, x)."""
    nib = pytest.importorskip("nibabel")
    found = sorted(DATA.glob(f"sub-{name}*/*/*.nii.gz"))
    if not found:
        pytest.skip(f"the real scans are not here: {DATA}")
    return np.ascontiguousarray(np.asanyarray(nib.load(found[0]).dataobj.get_unscaled()).T)


def slab(values: np.ndarray, voxels: int = 1 << 20) -> np.ndarray:
    """Return the middle slices of a scan, about so many values."""
    slices = values.shape[-3]
    keep = max(1, min(slices, voxels * slices // values.size))
    first = (slices - keep) // 2
    return np.ascontiguousarray(values[..., first : first + keep, :, :])


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", [f"s{i:02d}" for i in range(1, 13)])
def test_real_scans_are_kept(name):
    values = slab(real(name))
    data = encode_chunks([values], LOSSLESS)[0]
    assert describe_chunk(data).mode == "predictor"
    check_equal_bits(decode_chunk(data), values)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name, most, share", [("s03", 633_900, 0.8), ("s07", 314_400, 0.83)])
def test_real_scans_take_no_more_bytes_than_measured(name, most, share):
    """A whole scan, and the middle 20 slices of another: 0.82 of planes there, 0.77 over all its slices."""
    values = real(name) if name == "s03" else np.ascontiguousarray(real(name)[118:138])
    data = encode_chunks([values], LOSSLESS)[0]
    assert len(data) <= most
    assert len(data) <= share * size_without_model(values)
