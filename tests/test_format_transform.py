"""Mode transform decodes the same bits everywhere, by either reader, and needs no more than the specification says."""

from __future__ import annotations

import itertools
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from checks import DECODE_ALL, ROOT, check_equal_bits, decoder, digest, examples, maker, modes, run_python, vectors
from hypothesis import given
from hypothesis import strategies as st

from inrstore import limits
from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, frame
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.decode import decode_chunk, decode_inside, decode_region, describe_chunk
from inrstore.chunk.frame import Reader
from inrstore.chunk.modes import TRANSFORM
from inrstore.chunk.transform import decode as transform
from inrstore.chunk.transform import rdoq, wavelet
from inrstore.chunk.transform.adaptive import INCREMENT, MOST_COUNTS, SIZES, Model
from inrstore.chunk.transform.contexts import CLIP, MOST_OF, PASSES, USUAL, known
from inrstore.chunk.transform.header import reach
from inrstore.chunk.transform.subbands import keys_of, low_shape, subbands_of
from inrstore.errors import CorruptChunkError, LimitExceededError

VALID = {name: vectors("subset", "uncommon")[name] for name, mode in modes().items() if mode == "transform"}


@cache
def large_frame() -> bytes:
    """Return a frame with a matrix large enough for BLAS to share out among threads."""
    tool = maker("transform")
    plan = tool.Plan(
        seed=1, axis=0, components=48, levels=(0, 2, 3), basis=2**18, shift=30, gains=list(range(900, 960)),
        offsets=list(range(-3000, 3000, 100)), offset_shift=20, lanes=64, density=0.4, spread=9.0,
        low=-30000, high=30000,
    )  # fmt: skip
    return tool.transform_frame(np.zeros((60, 3, 30, 44), "<i2"), plan)


# ---- two readers -------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@examples(150)
def test_both_readers_decode_any_frame_to_the_same_bits(seed):
    data = maker("transform").any_frame(seed)
    ours, theirs = decode_chunk(data), decoder().decode(data)
    assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    check_equal_bits(ours, theirs)


def test_both_readers_decode_a_large_frame_to_the_same_bits():
    ours = decode_chunk(large_frame())
    check_equal_bits(ours, decoder().decode(large_frame()))
    assert len(np.unique(ours)) > 10_000  # it is not only clamped


def test_a_part_a_mask_and_a_description_can_be_read():
    data = VALID["transform-i2-3d-mask"]
    whole = decode_chunk(data)
    check_equal_bits(np.asarray(decode_region(data, (2, slice(3, 9), slice(None)))), whole[2, 3:9])
    assert decode_inside(data).sum() < whole.size and not whole[~decode_inside(data)].any()
    assert describe_chunk(data).mode == "transform"


# ---- exactness ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Return files of all vectors of the mode, and of the large frame."""
    folder, out = tmp_path_factory.mktemp("frames"), []
    for name, data in (VALID | {"large": large_frame()}).items():
        (folder / name).write_bytes(data)
        out.append(str(folder / name))
    return out


def test_bits_are_equal_for_every_kernel_and_number_of_threads(files):
    hashes = {
        run_python(DECODE_ALL, *files, OPENBLAS_CORETYPE=kernel, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads)
        for kernel, threads in itertools.product(("Haswell", "Zen", "SkylakeX", "Sandybridge"), "12")
    }
    assert len(hashes) == 1


def test_bits_are_equal_without_vector_instructions(files):
    from numpy._core import _multiarray_umath as core

    present = [f for f in core.__cpu_dispatch__ if core.__cpu_features__.get(f)]
    assert run_python(DECODE_ALL, *files, NPY_DISABLE_CPU_FEATURES=" ".join(present)) == run_python(DECODE_ALL, *files)


def test_bits_are_equal_from_many_threads_at_once():
    once = {name: digest(decode_chunk(data)) for name, data in VALID.items()}
    with ThreadPoolExecutor(8) as pool:
        names = list(VALID) * 2
        for name, values in zip(names, pool.map(lambda n: decode_chunk(VALID[n]), names), strict=True):
            assert digest(values) == once[name]


@pytest.mark.parametrize("block", [64, 1000, 1 << 22])
def test_bits_do_not_depend_on_how_many_values_are_made_at_once(monkeypatch, block):
    before = digest(decode_chunk(large_frame()))
    monkeypatch.setattr(transform, "_BLOCK", block)
    assert digest(decode_chunk(large_frame())) == before


def _with_torch(data: bytes, device: str) -> np.ndarray:
    """Decode with torch from the coefficients on: wavelet and matrix in float64, a correction with numpy."""
    import torch

    kept: dict[str, Any] = {}

    def keep(
        header: Any, lengths: Any, subbands: Any, coefficients: Any, dtype: Any, box: Any, loops: Any
    ) -> np.ndarray:
        kept.update(header=header, lengths=lengths, subbands=subbands, coefficients=coefficients)
        return np.zeros(box, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform, "synthesis", keep)
        parsed = frame.unpack(data)
        kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
        envelope = envelopes.read(reader, parsed.shape, kind)
        transform.decode(reader, kind, envelope.box_shape)
    header, lengths = kept["header"], kept["lengths"]
    count, levels = header.basis.shape[1], header.levels

    def lifted(v: Any, dim: int) -> Any:
        v = v.movedim(dim, 0)
        even, odd = v[0::2].clone(), v[1::2].clone()
        for number, factor in enumerate(reversed(wavelet.LIFTS)):
            if number % 2 == 0:
                sums = torch.cat([odd[:1], odd])[: len(even)] + torch.cat([odd, odd[-1:]])[: len(even)]
                even -= torch.floor((sums * factor + 8192) / 16384)
            else:
                sums = even[: len(odd)] + torch.cat([even[1:], even[-1:]])[: len(odd)]
                odd -= torch.floor((sums * factor + 8192) / 16384)
        out = torch.empty_like(v)
        out[0::2], out[1::2] = even, odd
        return out.movedim(0, dim)

    parts = {}
    for subband, active in zip(kept["subbands"], header.active, strict=True):
        whole = np.zeros((count, *subband.shape))
        whole[:active] = transform.dequantised(kept["coefficients"][subband.level, subband.key], subband, header)
        parts[subband.level, subband.key] = torch.from_numpy(whole).to(device)
    top = max(levels)
    low = parts[max(top - 1, 0), (0, 0, 0)]
    for level in range(top - 1, -1, -1):
        whole = torch.zeros((count, *low_shape(lengths, levels, level)), dtype=torch.float64, device=device)
        for key in keys_of(levels, level):
            where = tuple(slice(k, None, 1 + (level < n)) for k, n in zip(key, levels, strict=True))
            whole[:, *where] = parts[level, key] if any(key) else low
        for axis in (2, 1, 0):
            if level < levels[axis]:
                whole = lifted(whole, axis + 1)
        low = whole
    if header.correction is not None:
        volumes = low.cpu().numpy()
        header.correction.apply(volumes)
        low = torch.from_numpy(volumes).to(device)
    rows = low.reshape(count, -1)
    if len(header.basis) > 1:
        rows = torch.from_numpy(np.ldexp(header.basis.astype(float), header.column_shifts)).to(device) @ rows
    number = rows * torch.from_numpy(header.gains[:, None].astype(float)).to(device)
    number += torch.from_numpy((header.offsets[:, None] << header.offset_shift) + (1 << header.shift - 1)).to(device)
    number = torch.floor(number / 2.0**header.shift).clamp(header.low, header.high).long().cpu().numpy()
    if kind.kind == "f":
        values = np.ldexp(number.astype(float), header.exponent).astype(kind)
    else:
        values = (number << header.exponent).astype(kind)
    axis, box = header.channel_axis, envelope.box_shape
    if axis is not None:
        values = np.moveaxis(values.reshape(len(values), *(n for a, n in enumerate(box) if a != axis)), 0, axis)
    return np.asarray(envelopes.join(values.reshape(box).copy(), envelope, parsed.shape))


@pytest.mark.fit
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_makes_the_same_bits_in_float64(device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for data in (*VALID.values(), large_frame()):
        check_equal_bits(_with_torch(data, device), decode_chunk(data))


# ---- wavelet, order, counts --------------------------------------------------------------------------------


def test_one_step_of_a_band_has_the_norm_that_its_gain_says():
    """Quantisation errors of all subbands weigh alike, but for the borders and what is not orthogonal."""
    lengths, levels = (40, 48, 56), (2, 3, 3)
    for subband in subbands_of(lengths, levels):
        impulse = np.zeros((1, *subband.shape))
        impulse[0, *(n // 2 for n in subband.shape)] = wavelet.gain_of(subband.key, subband.level, levels) * 64.0
        made = wavelet.inverse({(subband.level, subband.key): impulse}, lengths, levels)
        norm = float(np.sqrt((made**2).sum())) / (64 * wavelet.UNIT)
        assert 0.8 < norm < 1.25, (subband, norm)


@pytest.mark.parametrize("lengths, levels", [((5, 6, 7), (1, 2, 0)), ((1, 300, 1), (0, 8, 0)), ((9, 9, 9), (3, 3, 3)),
                                             ((2, 3, 1), (1, 2, 0)), ((7, 1, 4), (0, 0, 0))])  # fmt: skip
def test_bands_hold_as_many_numbers_as_the_volume(lengths, levels):
    subbands = subbands_of(lengths, levels)
    assert sum(int(np.prod(b.shape)) for b in subbands) == np.prod(lengths)
    assert len({(b.level, b.key) for b in subbands}) == len(subbands)
    assert all(min(b.shape) > 0 for b in subbands)


def test_a_missing_band_is_a_band_of_zeros():
    rng, lengths, levels = np.random.default_rng(1), (9, 10, 11), (2, 3, 1)
    parts = {
        (b.level, b.key): rng.integers(-9000, 9000, (2, *b.shape)).astype(float) for b in subbands_of(lengths, levels)
    }
    for place in parts:
        rest = {p: v for p, v in parts.items() if p != place}
        zeros = rest | {place: np.zeros_like(parts[place])}
        check_equal_bits(wavelet.inverse(rest, lengths, levels), wavelet.inverse(zeros, lengths, levels))


def test_every_position_is_decoded_once_and_knows_only_what_came_before():
    order = {parity: step for step, pair in enumerate(PASSES) for parity in pair}
    assert sorted(order) == sorted(itertools.product((0, 1), repeat=3))
    for parity, step in order.items():
        for offset in known(parity):
            assert order[tuple((p + o) % 2 for p, o in zip(parity, offset, strict=True))] < step
    assert [len(known(p)) for p in (PASSES[0][0], PASSES[1][0], PASSES[3][1])] == [0, 6, 18]


def test_the_reach_of_weights_counts_every_magnitude_that_a_number_can_have():
    row = np.array([[3, 5, 7, 11, 13, 17, 19, 23, 29]])
    assert reach(row)[0] == 16 * CLIP * sum(n * w for n, w in zip(MOST_OF, row[0], strict=False)) + 29


def test_counts_are_forgotten_in_halves_and_never_run_out():
    model = Model()
    contexts = np.zeros(1, np.int64)
    for _ in range(3 * MOST_COUNTS // INCREMENT):
        model.count_flags(contexts, np.ones(1, np.bool_))
        model.count_sizes(contexts, np.full(1, SIZES - 1))
    assert model.flags.sum(1).max() <= MOST_COUNTS and model.flags.min() >= 1 and model.sizes.min() >= 1
    share = model.flag_counts()
    assert share[0] > 65000 and share.min() >= 1 and share.max() <= 65535
    counts = model.size_counts()
    assert (counts.sum(1) == 4096).all() and counts.min() >= 1
    assert len(counts) == len(share)


# ---- limits ------------------------------------------------------------------------------------------------


def test_components_are_no_more_than_positions_and_measurements():
    tool = maker("transform")
    for shape, components, fits in (((9, 2, 2), 4, True), ((9, 2, 2), 5, False), ((3, 8, 8), 3, True),
                                    ((3, 8, 8), 4, False)):  # fmt: skip
        plan = tool.Plan(axis=0, components=components, levels=(0, 0, 0))
        if fits:
            assert decode_chunk(tool.transform_frame(np.zeros(shape, "<i2"), plan)).shape == shape
        else:
            with pytest.raises(LimitExceededError) as caught:
                tool.transform_frame(np.zeros(shape, "<i2"), plan)
            assert caught.value.field == "transform.components"


HOSTILE = {
    "matrix of nothing": ((4096, 1024), {"axis": 0, "components": 1024, "active": 0, "basis": 0}),
    "matrix": ((2048, 1024), {"axis": 0, "components": 1024, "lanes": 4096, "basis": 1}),
    "subbands": ((1024, 32, 32), {"axis": 0, "components": 1024, "levels": (0, 5, 5), "lanes": 64, "basis": 1}),
    "a line": ((1 << 21,), {"levels": (0, 0, 8), "lanes": 64}),
    "a cube": ((128, 128, 128), {"levels": (5, 5, 5), "lanes": 64}),
    "one state": ((1 << 15,), {"density": 1.0, "spread": 9.0, "lanes": 1}),
    "no coefficients": ((160, 160, 160), {"levels": (5, 5, 5), "active": 0}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_frames_that_ask_for_much_cost_time_and_memory_in_proportion(name):
    tool = maker("transform")
    shape, fields = HOSTILE[name]
    plan = tool.Plan(**{"levels": (0, 0, 0), "density": 0.0, "low": 0, "high": 200, **fields})
    payload = envelopes.write(envelopes.whole(shape), shape) + tool.payload_for(plan, shape)
    data = frame.pack(TRANSFORM.number, np.zeros(shape, "u1"), 0, payload)
    begin = time.process_time()
    tracemalloc.start()
    try:
        assert chunks.values_of(frame.unpack(data)).shape == shape
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 72 * np.prod(shape) + (8 << 20), peak >> 20
    assert time.process_time() - begin < 10


def test_states_have_to_be_there_for_coefficients():
    tool = maker("transform")
    shape = (limits.MAX_TRANSFORM_PER_LANE + 1,)
    with pytest.raises(LimitExceededError) as caught:
        tool.transform_frame(np.zeros(shape, "u1"), tool.Plan(levels=(0, 0, 0), lanes=1, density=0.0))
    assert caught.value.field == "transform.lanes"
    for count in (1, 2**15 + 1, 2**20, 2**27):  # what writers choose is enough
        assert rdoq.lane_count(0, count, 0) * limits.MAX_TRANSFORM_PER_LANE >= count


def test_changed_bytes_of_a_frame_only_ever_raise_one_error():
    """Each byte of a few frames set to other values, sealed again: an array or the one error, by both readers."""
    tool, outcomes = maker(), set()
    for name in ("transform-i2-escapes-of-13-bits", "transform-i2-channels-alone"):
        data = VALID[name]
        parsed = frame.unpack(data)
        for place in range(frame.header_size(len(parsed.shape)), len(data) - 4):
            for flip in (1, 0x80, 0xFF):
                forged = tool.edit(data, place, bytes([data[place] ^ flip]))
                try:
                    assert chunks.values_of(frame.unpack(forged)).shape == parsed.shape
                    outcomes.add("array")
                except CorruptChunkError as error:
                    outcomes.add(error.field)
                    with pytest.raises(decoder().Invalid):
                        decoder().decode(forged)
    assert {"array", "transform.words", "transform.bits", "transform.states", "transform.weights"} <= outcomes


def test_the_usual_weights_of_the_specification_are_those_of_the_readers():
    text = (ROOT / "specs" / "inrstore-1.md").read_text()
    table = text[text.index("| kind | pass | W[0] |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[int(cell) for cell in line.strip("|").split("|")] for line in table]
    assert [row[:2] for row in rows] == [[kind, step] for kind in range(4) for step in range(4)]
    of_specification = np.array([row[2:] for row in rows])
    assert (of_specification == USUAL.reshape(16, 9)).all() and not USUAL.flags.writeable
    decoder()
    assert (of_specification == sys.modules["decoder_transform"].USUAL_WEIGHTS).all()
