"""Arrays of Zarr versions 2 and 3: every layout is written, every selection is read, and no more than that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from checks import DTYPES, check_equal_bits, maker, random_values, vectors

from inrstore.chunk import decode as chunks
from inrstore.chunk import modes
from inrstore.chunk.decode import describe_chunk
from inrstore.chunk.encode import encode_as
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.network import Evaluator
from inrstore.codecs import InrCodec, InrNumcodec, decoded
from inrstore.errors import CorruptChunkError

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def create(
    path: Path,
    zarr_format: int,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    promise: Any = None,
    **more: Any,
) -> zarr.Array:
    """Create an array whose chunks this package codes."""
    promise = promise or {"lossless": True}
    if zarr_format == 3:
        more |= {"serializer": InrCodec(**promise), "compressors": None}
    else:
        more |= {"compressors": InrNumcodec(**promise)}
    return zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype, zarr_format=zarr_format, **more)


def stored(path: Path) -> list[Path]:
    """Return the chunk files of an array."""
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in ("zarr.json", ".zarray", ".zattrs"))


class Counter:
    """Counts calls of functions that it replaces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, str]) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for module, name in places:
            monkeypatch.setattr(module, name, self._wrap(name, getattr(module, name)))

    def _wrap(self, name: str, original: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments))
            return original(*arguments, **named)

        return counted


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Count chunks that the codecs decode, with none kept."""
    monkeypatch.setattr(decoded, "_recent", decoded._Recent(0))
    return Counter(monkeypatch, (decoded, "decode_chunk"), (decoded, "decode_region"))


# ---- writing and reading everything ------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_stored_and_read(tmp_path, zarr_format, dtype):
    values = random_values((5, 7, 6), dtype, 3, "noise")
    array = create(tmp_path / "a", zarr_format, values.shape, (2, 4, 6), dtype)
    array[...] = values
    check_equal_bits(array[...], values)
    again = zarr.open_array(tmp_path / "a", mode="r")
    check_equal_bits(again[...], values)
    check_equal_bits(again[1:4, ::2, 5], values[1:4, ::2, 5])
    assert again.dtype.newbyteorder("=") == values.dtype.newbyteorder("=")
    if zarr_format == 2:
        assert again.dtype == values.dtype


@FORMATS
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("source_order", ["C", "F"])
def test_memory_order_changes_nothing(tmp_path, zarr_format, order, source_order):
    values = np.asarray(random_values((6, 5, 4), ">i4", 1, "noise"), order=source_order)
    more = {"order": order} if zarr_format == 2 else {"config": {"order": order}}
    array = create(tmp_path / "a", zarr_format, values.shape, (3, 5, 2), ">i4", **more)
    array[...] = values
    check_equal_bits(array[...], values)
    again = zarr.open_array(tmp_path / "a", mode="r")
    check_equal_bits(again[...], values)
    check_equal_bits(again[2:5, 3, ::3], values[2:5, 3, ::3])


@FORMATS
@pytest.mark.parametrize(
    "shape, grid",
    [((10, 11), (4, 4)), ((1, 1, 1), (1, 1, 1)), ((7,), (10,)), ((), ()), ((9, 1, 2, 3), (2, 1, 2, 2)),
     ((2,) * 8, (1, 2) * 4), ((0, 3), (2, 2))],
)  # fmt: skip
def test_edge_chunks_and_odd_shapes_are_read(tmp_path, zarr_format, shape, grid):
    values = random_values(shape, "<f4", 2, "holes")
    array = create(tmp_path / "a", zarr_format, shape, grid, "<f4", fill_value=np.nan)
    array[...] = values
    check_equal_bits(np.asarray(zarr.open_array(tmp_path / "a", mode="r")[...]), values)


@FORMATS
def test_lossy_promises_hold_through_zarr(tmp_path, zarr_format):
    values = maker().smooth((3, 9, 10, 11), "<i2", 1)
    array = create(tmp_path / "a", zarr_format, values.shape, (3, 5, 5, 5), "<i2", {"max_error": 6})
    array[...] = values
    decoded = zarr.open_array(tmp_path / "a", mode="r")[...]
    assert 0 < np.abs(decoded.astype(int) - values).max() <= 6
    assert {describe_chunk(p.read_bytes()).mode for p in stored(tmp_path / "a")} == {"byteplanes"}


def test_a_compressor_after_the_codec_does_no_harm(tmp_path):
    values = random_values((6, 7), "<i2", 1, "noise")
    array = zarr.create_array(
        tmp_path / "a", data=values, chunks=(3, 4), serializer=InrCodec(lossless=True), compressors="auto"
    )
    assert len(array.compressors) == 1
    check_equal_bits(zarr.open_array(tmp_path / "a", mode="r")[2:, 3], values[2:, 3])


def test_version_2_takes_it_as_a_filter_too(tmp_path):
    values = random_values((6, 7), "<i2", 1, "noise")
    zarr.create_array(
        tmp_path / "a",
        data=values,
        chunks=(3, 4),
        zarr_format=2,
        filters=[InrNumcodec(lossless=True)],
        compressors=None,
    )
    check_equal_bits(zarr.open_array(tmp_path / "a", mode="r")[...], values)


def test_arrays_keep_the_effort_they_were_created_with(tmp_path):
    array = zarr.create_array(
        tmp_path / "a",
        shape=(4,),
        dtype="i2",
        chunks=(4,),
        serializer=InrCodec(rmse=1.0, preset="fast"),
        compressors=None,
    )
    assert array.serializer.preset == "fast"
    assert zarr.open_array(tmp_path / "a").serializer.preset == "balanced"


def test_the_fused_pipeline_of_later_zarr_reads_and_writes_it(tmp_path):
    if not hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"):
        pytest.skip("this zarr has no fused pipeline")
    values = random_values((6, 8, 9), "<i2", 1, "noise")
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        create(tmp_path / "a", 3, values.shape, (3, 4, 4), "<i2")[...] = values
        array = zarr.open_array(tmp_path / "a", mode="r")
        check_equal_bits(array[...], values)
        check_equal_bits(array[1:5, 3, ::2], values[1:5, 3, ::2])
    check_equal_bits(zarr.open_array(tmp_path / "a", mode="r")[...], values)


# ---- selections --------------------------------------------------------------------------------------------

BASIC = [
    (3, 4, 5), (-1, -1, -1), (slice(None), 4, 5), (slice(2, 9), slice(None, None, 3), 0), (Ellipsis, 2),
    (slice(5, 5), slice(None), slice(None)), (slice(1, 10, 4), slice(3, 4), slice(0, 9, 8)), (7,), (Ellipsis,),
]  # fmt: skip


@pytest.mark.parametrize("zarr_format, sharded", [(2, False), (3, False), (3, True)])
def test_every_kind_of_selection_is_read(tmp_path, zarr_format, sharded):
    values = random_values((10, 9, 9), "<i2", 4, "noise")
    more = {"shards": (8, 4, 8)} if sharded else {}
    create(tmp_path / "a", zarr_format, values.shape, (4, 4, 4), "<i2", **more)[...] = values
    array = zarr.open_array(tmp_path / "a", mode="r")
    for selection in BASIC:
        check_equal_bits(np.asarray(array[selection]), np.asarray(values[selection]))
    rows, columns = np.array([0, 3, 3, 9]), np.array([8, 1])
    check_equal_bits(array.oindex[rows, :, columns], values[np.ix_(rows, range(9), columns)])
    check_equal_bits(array.oindex[rows, 2, 1:7:2], values[rows, 2, 1:7:2])
    check_equal_bits(array.vindex[rows, rows[::-1] % 9, rows % 7], values[rows, rows[::-1] % 9, rows % 7])
    mask = np.random.default_rng(0).random(values.shape) < 0.1
    check_equal_bits(array.vindex[mask], values[mask])
    check_equal_bits(array[mask], values[mask])
    first = np.arange(10) % 3 == 0
    check_equal_bits(array.oindex[first, 4:, 2], values[first, 4:, 2])
    check_equal_bits(array.blocks[1, 0, 2] if not sharded else array[4:8, 0:4, 8:], values[4:8, 0:4, 8:])


def test_selections_of_a_network_are_slices_of_it(tmp_path):
    data = vectors("subset")["siren-i2-4d-box"]
    whole = chunks.decode_chunk(data)
    create(tmp_path / "a", 3, whole.shape, whole.shape, "<i2")
    put(tmp_path / "a", data, 4)
    array = zarr.open_array(tmp_path / "a", mode="r")
    check_equal_bits(array[...], whole)
    for selection in (
        (slice(None), 3, 4, 5),
        (1, slice(1, 6, 2), slice(None), 7),
        (2, 5, 6, 7),
        (slice(1, 3),),
        (0, slice(0, 0)),
    ):
        check_equal_bits(np.asarray(array[selection]), np.asarray(whole[selection]))
    picked = [0, 5, 2]
    check_equal_bits(array.oindex[:, picked, 3, :], whole[:, picked, 3, :])
    check_equal_bits(array.vindex[[0, 1, 2], picked, picked, picked], whole[[0, 1, 2], picked, picked, picked])


def put(path: Path, data: bytes, ndim: int, *position: int) -> None:
    """Write a chunk file of a version 3 array by hand."""
    file = path.joinpath("c", *map(str, position or (0,) * ndim))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


# ---- laziness ----------------------------------------------------------------------------------------------


@FORMATS
def test_opening_decodes_nothing(tmp_path, zarr_format, decodes):
    values = random_values((5, 16, 16, 16), "<i2", 1, "noise")
    create(tmp_path / "a", zarr_format, values.shape, (5, 8, 8, 8), "<i2")[...] = values
    decodes.calls.clear()
    array = zarr.open_array(tmp_path / "a", mode="r")
    str(array.info), repr(array), array.nbytes, array.chunks
    assert decodes.calls == []


@FORMATS
def test_one_voxels_time_course_decodes_one_chunk(tmp_path, zarr_format, decodes):
    values = random_values((5, 16, 16, 16), "<i2", 1, "noise")
    create(tmp_path / "a", zarr_format, values.shape, (5, 8, 8, 8), "<i2")[...] = values
    decodes.calls.clear()
    array = zarr.open_array(tmp_path / "a", mode="r")
    check_equal_bits(array[:, 3, 12, 5], values[:, 3, 12, 5])
    assert len(decodes.calls) == 1
    array[:, 6:10, 3, 3]
    assert len(decodes.calls) == 3


def test_one_voxel_of_a_shard_decodes_one_inner_chunk(tmp_path, decodes):
    values = random_values((16, 16, 16), "<i2", 1, "noise")
    create(tmp_path / "a", 3, values.shape, (4, 4, 4), "<i2", shards=(8, 8, 8))[...] = values
    decodes.calls.clear()
    assert zarr.open_array(tmp_path / "a", mode="r")[5, 6, 7] == values[5, 6, 7]
    assert len(decodes.calls) == 1


def test_a_network_is_evaluated_at_the_wanted_voxels_alone(tmp_path, monkeypatch):
    data = vectors("subset")["siren-i2-4d"]
    whole = chunks.decode_chunk(data)
    create(tmp_path / "a", 3, whole.shape, whole.shape, "<i2")
    put(tmp_path / "a", data, 4)
    array = zarr.open_array(tmp_path / "a", mode="r")
    evaluations = Counter(monkeypatch, (siren, "evaluate"))
    points: list[int] = []
    hidden = Evaluator.hidden

    def counted(self: Any, z: Any) -> Any:
        points.append(z.shape[1])
        return hidden(self, z)

    monkeypatch.setattr(Evaluator, "hidden", counted)
    check_equal_bits(array[:, 2, 3, 4], whole[:, 2, 3, 4])
    assert (len(evaluations.calls), points) == (1, [1])
    points.clear()
    check_equal_bits(array[1, 1:3, ::2, -1], whole[1, 1:3, ::2, -1])
    assert sum(points) == 6
    points.clear()
    array[0, 2:2]
    assert points == []


def test_only_one_chunk_is_decoded_to_read_a_part_of_it_through_dask(tmp_path, decodes):
    dask_array = pytest.importorskip("dask.array")
    values = random_values((5, 16, 16, 16), "<i2", 1, "noise")
    create(tmp_path / "a", 3, values.shape, (5, 8, 8, 8), "<i2")[...] = values
    decodes.calls.clear()
    lazy = dask_array.from_zarr(str(tmp_path / "a"))
    assert decodes.calls == []
    check_equal_bits(lazy[:, 3, 12, 5].compute(scheduler="synchronous"), values[:, 3, 12, 5])
    assert len(decodes.calls) == 1


# ---- absent, partly written and damaged chunks -------------------------------------------------------------


@FORMATS
def test_an_absent_chunk_reads_as_the_fill_value(tmp_path, zarr_format):
    values = random_values((8, 8), "<i2", 1, "noise")
    create(tmp_path / "a", zarr_format, values.shape, (4, 4), "<i2", fill_value=-7)[0:4] = values[0:4]
    array = zarr.open_array(tmp_path / "a", mode="r")
    assert (array[4:] == -7).all() and array[6, 6] == -7
    check_equal_bits(array[:4], values[:4])
    assert len(stored(tmp_path / "a")) == 2
    stored(tmp_path / "a")[0].unlink()
    assert (array[:4, :4] == -7).all()


@FORMATS
def test_chunks_of_fill_value_are_not_stored_and_read_back(tmp_path, zarr_format):
    array = create(tmp_path / "a", zarr_format, (8, 8), (4, 4), "<f4", fill_value=np.nan)
    array[...] = np.full((8, 8), np.nan, "<f4")
    array[0, 0] = 3
    assert len(stored(tmp_path / "a")) == 1
    assert np.isnan(array[...]).sum() == 63


@FORMATS
def test_writing_a_part_of_a_lossless_chunk_keeps_the_rest(tmp_path, zarr_format):
    values = random_values((8, 9), "<i4", 1, "noise")
    array = create(tmp_path / "a", zarr_format, values.shape, (4, 4), "<i4")
    array[...] = values
    array[2:6, 3] = 17
    values[2:6, 3] = 17
    check_equal_bits(array[...], values)


@FORMATS
def test_a_damaged_chunk_is_an_error_that_names_the_field_and_spares_its_neighbours(tmp_path, zarr_format):
    values = random_values((8, 8), "<i2", 1, "noise")
    create(tmp_path / "a", zarr_format, values.shape, (4, 4), "<i2")[...] = values
    file = stored(tmp_path / "a")[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(bytes(data))
    array = zarr.open_array(tmp_path / "a", mode="r")
    for selection in ((0, 0), (slice(0, 4), slice(0, 4)), Ellipsis):
        with pytest.raises(CorruptChunkError, match="frame_crc"):
            array[selection]
    check_equal_bits(array[4:, 4:], values[4:, 4:])
    file.write_bytes(bytes(data[:7]))
    with pytest.raises(CorruptChunkError):
        array[1, 1]
    file.write_bytes(b"")
    with pytest.raises(CorruptChunkError, match="magic"):
        array[1, 1]


def test_a_chunk_of_another_array_is_refused(tmp_path):
    values = random_values((8, 8), "<i2", 1, "noise")
    create(tmp_path / "a", 3, values.shape, (4, 4), "<i2")[...] = values
    array = zarr.open_array(tmp_path / "a", mode="r")
    for other, field in (
        (np.zeros((4, 5), "<i2"), "shape"),
        (np.zeros((4, 4), "<u2"), "dtype"),
        (np.zeros((1 << 12, 1 << 12), "<i2"), "shape"),
    ):
        put(tmp_path / "a", encode_as(modes.BYTEPLANES, other), 2)
        with pytest.raises(CorruptChunkError, match=field):
            array[...]
        with pytest.raises(CorruptChunkError, match=field):
            array[1, 2]


def test_sizes_are_not_promised_in_advance():
    with pytest.raises(NotImplementedError):
        InrCodec(lossless=True).compute_encoded_size(10, None)
    assert not InrCodec(lossless=True).is_fixed_size


def test_a_pipeline_without_an_event_loop_reads_and_writes_the_same(tmp_path):
    pipelines = pytest.importorskip("zarr.core.codec_pipeline")
    if not hasattr(pipelines, "FusedCodecPipeline"):
        pytest.skip(f"zarr {zarr.__version__} has no pipeline without an event loop")
    values = np.add.outer(np.arange(8), np.arange(600).reshape(20, 30)).astype("i2")
    found = {}
    for name in ("BatchedCodecPipeline", "FusedCodecPipeline"):
        with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{name}"}):
            array = zarr.create_array(tmp_path / f"{name}.zarr", data=values, chunks=(4, 20, 30),
                                      serializer=InrCodec(lossless=True), compressors=None)  # fmt: skip
            assert type(array.async_array.codec_pipeline).__name__ == name
            assert (array[...] == values).all() and (array[3, 4:9, ::7] == values[3, 4:9, ::7]).all()
            files = sorted(p for p in (tmp_path / f"{name}.zarr/c").rglob("*") if p.is_file())
            found[name] = [p.read_bytes() for p in files]
    assert found["BatchedCodecPipeline"] == found["FusedCodecPipeline"] and len(found["FusedCodecPipeline"]) == 2
