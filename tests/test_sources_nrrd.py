"""NRRD images, with their voxels inside or beside, come back byte for byte; a header that lies is refused."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from common import check_refused, check_same_bits, opened, random_image, tree

import inrstore
from inrstore.errors import ConfigurationError, SourceError, UnsupportedImageError
from inrstore.sources import read_source
from inrstore.store.reader import Store

NAMES = {"i1": "signed char", "u1": "uint8", "i2": "short", "u2": "unsigned short int", "i4": "int32_t", "u4": "uint",
         "i8": "long long", "u8": "uint64", "f4": "float", "f8": "double"}  # fmt: skip

SPACE = {
    "space": "left-posterior-superior",
    "space directions": "(2,0,0) (0,2.5,0.1) (0,-0.1,3)",
    "space origin": "(-90,126,-72.5)",
}
RAS = np.array([[-2, 0, 0, 90], [0, -2.5, 0.1, -126], [0, 0.1, 3, -72.5], [0, 0, 0, 1]])


GZIP = b"\x1f\x8b"
"""Raw voxels may begin as a gzip stream does."""


def header(values: np.ndarray, fields: dict[str, str | None] | None = None, newline: str = "\n") -> bytes:
    """Return a header of (x, y, z, ...) values; a field that is None is left out."""
    given: dict[str, str | None] = {
        "type": NAMES[values.dtype.str[1:]],
        "dimension": str(values.ndim),
        "sizes": " ".join(map(str, values.shape)),
        "endian": "big" if values.dtype.str[0] == ">" else "little",
        "encoding": "raw",
        **(fields or {}),
    }
    lines = ["NRRD0005", "# a comment: of somebody", *(f"{k}: {v}" for k, v in given.items() if v is not None)]
    return newline.join([*lines, "key:=value: with colons", "", ""]).encode()


def write_nrrd(path: Path, values: np.ndarray, before: bytes = b"", after: bytes = b"", newline: str = "\n",
               **fields: str | None) -> Path:  # fmt: skip
    named = {name.replace("_", " "): value for name, value in fields.items()}
    data = before + values.tobytes(order="F") + after
    packed = gzip.compress(data) if named.get("encoding") in ("gzip", "gz") else data
    if "data file" in named:
        (path.parent / str(named["data file"])).write_bytes(packed)
        packed = b""
    path.write_bytes(header(values, named, newline) + packed)
    return path


def unpacked(path: Path) -> bytes:
    """Return a file with what is gzipped in it unpacked."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    head, blank, rest = data.partition(b"\r\n\r\n" if b"\r\n" in data[:20] else b"\n\n")
    return head + blank + (gzip.decompress(rest) if rest[:2] == b"\x1f\x8b" else rest)


def come_back(folder: Path, path: Path) -> None:
    """Check that a lossless store gives back every unpacked byte of an image, under its name."""
    inrstore.convert(path, folder / "s.ozx", lossless=True)
    (folder / "out").mkdir()
    inrstore.export(folder / "s.ozx", folder / "out" / path.name)
    for made in (folder / "out").iterdir():
        assert unpacked(made) == unpacked(path.parent / made.name)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "GZ"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", NAMES)
def test_an_image_comes_back(tmp_path, dtype, order, encoding):
    values = random_image((5, 4, 3), np.dtype(order + dtype))
    path = write_nrrd(tmp_path / "a.nrrd", values, encoding=encoding.lower(), **SPACE)
    source = read_source(path)
    assert (source.kind, source.labels) == ("NRRD", False)
    check_same_bits(np.ascontiguousarray(source.voxels.T), values)
    come_back(tmp_path, path)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_bytes_around_the_voxels_come_back(tmp_path, encoding, newline):
    values = random_image((5, 4, 3))
    path = write_nrrd(tmp_path / "a.nrrd", values, b"skipped", b"and more", newline, encoding=encoding, byte_skip="7")
    source = read_source(path)
    assert (source.leading, source.trailing) == (b"skipped", b"and more")
    check_same_bits(np.ascontiguousarray(source.voxels.T), values)
    come_back(tmp_path, path)


@pytest.mark.parametrize("data, encoding", [("a.raw", "raw"), ("a.raw.gz", "gzip")])
def test_an_image_of_two_files_comes_back(tmp_path, data, encoding):
    (tmp_path / "in").mkdir()
    values = random_image((5, 4, 3, 2))
    path = write_nrrd(tmp_path / "in/a.nhdr", values, GZIP, b"3", encoding=encoding, data_file=data, byteskip="2")
    assert read_source(path).kind == "NRRD detached"
    assert read_source(tmp_path / "in" / data).name == "a.nhdr"
    come_back(tmp_path, path)
    with pytest.raises(ConfigurationError, match=f"its voxels lie in {data}"):
        inrstore.export(tmp_path / "s.ozx", tmp_path / "b.nhdr")
    assert not list(tmp_path.glob("b.*"))


def test_archives_and_zips_come_back(tmp_path):
    (tmp_path / "in").mkdir()
    values = random_image((5, 4, 3))
    write_nrrd(tmp_path / "in/a.nhdr", values, data_file="a.raw")
    write_nrrd(tmp_path / "in/b.nrrd", values, encoding="gzip")
    write_nrrd(tmp_path / "in/c.nhdr", values, data_file="elsewhere.dat")
    (tmp_path / "in/alone.raw").write_bytes(b"of a camera")
    with zipfile.ZipFile(tmp_path / "in/z.zip", "w") as packed:
        for name in ("a.nhdr", "a.raw", "b.nrrd"):
            packed.write(tmp_path / "in" / name, f"deep/{name}")
    report = inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True)
    assert report.complete and report.converted == 4
    assert (tmp_path / "archive/elsewhere.dat").exists() and (tmp_path / "archive/alone.raw").exists()
    inrstore.export(tmp_path / "archive", tmp_path / "out")
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "in").keys()
    for path in sorted((tmp_path / "in").glob("*.*")):
        if path.suffix != ".zip":
            assert unpacked(tmp_path / "out" / path.name) == unpacked(path)
    with zipfile.ZipFile(tmp_path / "in/z.zip") as one, zipfile.ZipFile(tmp_path / "out/z.zip") as other:
        assert one.namelist() == other.namelist()
        for name in ("deep/a.nhdr", "deep/a.raw"):
            assert one.read(name) == other.read(name)


@pytest.mark.parametrize(
    "directions, kinds, axes",
    [
        ("none (2,0,0) (0,2,0) (0,0,3)", "vector domain domain domain", (0, 3, 2, 1)),
        ("(2,0,0) (0,2,0) (0,0,3) none", "space space space list", (3, 2, 1, 0)),
        ("(2,0,0) none (0,2,0) (0,0,3)", None, (1, 3, 2, 0)),
        (None, "vector domain domain domain", (0, 3, 2, 1)),
        (None, None, (3, 2, 1, 0)),
    ],
)
def test_measurements_come_first_wherever_they_lie(tmp_path, directions, kinds, axes):
    values = random_image((5, 4, 3, 6))
    fields = {"space": "RAS" if directions else None, "space_directions": directions, "kinds": kinds}
    path = write_nrrd(tmp_path / "a.nrrd", values, **fields)
    source = read_source(path)
    check_same_bits(np.ascontiguousarray(source.voxels), np.ascontiguousarray(values.transpose(axes)))
    if directions:
        assert np.array_equal(source.affine, np.diag([2, 2, 3, 1]))
        assert source.voxel_size == (2, 2, 3, 1)
    come_back(tmp_path, path)


def test_measurements_of_a_picture_come_first(tmp_path):
    values = random_image((3, 8, 9), "u1")
    path = write_nrrd(tmp_path / "a.nrrd", values, kinds="RGB-color domain domain")
    assert read_source(path).voxels.shape == (3, 1, 9, 8)
    come_back(tmp_path, path)


@pytest.mark.parametrize(
    "space, signs",
    [("left-posterior-superior", (-1, -1, 1)), ("LPS", (-1, -1, 1)), ("LAS", (-1, 1, 1)), ("RAS", (1, 1, 1)),
     ("right-anterior-superior-time", (1, 1, 1)), ("lpst", (-1, -1, 1)), ("scanner-xyz", (1, 1, 1)), (None, (1, 1, 1))],
)  # fmt: skip
def test_the_affine_leads_to_right_anterior_superior(tmp_path, space, signs):
    fields = {**SPACE, "space": space, "space units": '"mm" "mm" "mm"'}
    (tmp_path / "a.nrrd").write_bytes(header(values := random_image((5, 4, 3)), fields) + values.tobytes(order="F"))
    source = read_source(tmp_path / "a.nrrd")
    lps = np.diag([-1, -1, 1, 1]) @ RAS
    assert np.allclose(source.affine, np.diag([*signs, 1]) @ lps)
    inrstore.convert(tmp_path / "a.nrrd", tmp_path / "s.zarr", max_error=2)
    (scale,) = opened(tmp_path / "s.zarr").attrs["ome"]["multiscales"]
    assert [axis["unit"] for axis in scale["axes"]] == ["millimeter"] * 3
    steps = scale["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert np.allclose(steps, np.linalg.norm(RAS[:3, :3], axis=0)[::-1])


def test_spacings_serve_where_there_is_no_space(tmp_path):
    values = random_image((5, 4, 3, 2))
    source = read_source(write_nrrd(tmp_path / "a.nrrd", values, spacings="1.5 nan 3 nan"))
    assert np.array_equal(source.affine, np.diag([1.5, 1, 3, 1]))
    assert source.affine_from == "spacings"


def test_segmentations_are_labels(tmp_path):
    values = random_image((5, 4, 3), "u1")
    head = header(values).replace(b"key:=", b"Segment0_ID:=Segment_1\nkey:=")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.seg.nrrd").write_bytes(head + values.tobytes(order="F"))
    inrstore.convert(tmp_path / "in", tmp_path / "archive", psnr=20)
    assert Store(tmp_path / "archive/a.seg.nrrd.ozx").promised == {"lossless": True}


def test_pynrrd_reads_the_same(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    values = random_image((5, 4, 3), "f4")
    meta = {"space": "left-posterior-superior", "space directions": np.diag([2.0, 2, 3]), "space origin": [1.0, 2, 3]}
    for name, options in {
        "a.nrrd": {"encoding": "gzip"}, "b.nrrd": {"encoding": "raw"},
        "c.nhdr": {"encoding": "gzip"}, "d.nhdr": {"encoding": "raw"},
    }.items():  # fmt: skip
        nrrd.write(str(tmp_path / name), values, {**meta, **options})
        found, fields = nrrd.read(str(tmp_path / name))
        source = read_source(tmp_path / name)
        check_same_bits(np.ascontiguousarray(source.voxels.T), np.ascontiguousarray(found))
        assert np.allclose(source.affine[:3, :3], np.diag([-1, -1, 1]) @ fields["space directions"].T)
        (tmp_path / name[0]).mkdir()
        come_back(tmp_path / name[0], tmp_path / name)
        again, _ = nrrd.read(str(tmp_path / name[0] / "out" / name))
        assert np.array_equal(again, values)


@pytest.mark.parametrize(
    "fields, error, words",
    [
        ({"type": None}, SourceError, "type: is missing"),
        ({"type": "block"}, UnsupportedImageError, "type: block"),
        ({"type": "quaternion"}, SourceError, "type"),
        ({"endian": None}, SourceError, "endian"),
        ({"endian": "middle"}, SourceError, "endian"),
        ({"dimension": "0"}, SourceError, "dimension"),
        ({"dimension": "17"}, SourceError, "dimension"),
        ({"dimension": "9" * 5000}, SourceError, "dimension"),
        ({"dimension": "4"}, SourceError, "sizes"),
        ({"sizes": "5 4 -3"}, SourceError, "sizes"),
        ({"sizes": "5 4 0"}, SourceError, "sizes"),
        ({"sizes": "5 4 3.0"}, SourceError, "sizes"),
        ({"sizes": "5 4 4"}, SourceError, "sizes"),
        ({"sizes": "999999999999999999 999999999999999999 999999999999999999"}, SourceError, "claims"),
        ({"encoding": None}, SourceError, "encoding: is missing"),
        ({"encoding": "zip"}, SourceError, "encoding"),
        ({"encoding": "hex"}, UnsupportedImageError, "encoding"),
        ({"encoding": "bzip2"}, UnsupportedImageError, "encoding"),
        ({"line skip": "1"}, UnsupportedImageError, "line skip"),
        ({"byte skip": "-1"}, UnsupportedImageError, "byte skip"),
        ({"byte skip": "-2"}, SourceError, "byte skip"),
        ({"byte skip": "99999999999999999"}, SourceError, "byte skip"),
        ({"data file": "b.raw"}, UnsupportedImageError, "data file"),
        ({"space directions": "(1,0,0) (0,1,0)"}, SourceError, "space directions"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,nan)"}, SourceError, "space directions"),
        ({"space directions": "(1,0,0) (0,1,0) 3"}, SourceError, "space directions"),
        ({"space directions": "(1,0,0) (0,1) (0,0,1)"}, SourceError, "space directions"),
        ({"space directions": "(" * 9999}, SourceError, "space directions"),
        ({"space directions": "(1,0,0,0) (0,1,0,0) (0,0,1,0)"}, UnsupportedImageError, "space"),
        ({**SPACE, "space origin": "(1,2)"}, SourceError, "space origin"),
        ({**SPACE, "space origin": "none"}, SourceError, "space origin"),
        ({"spacings": "1 2"}, SourceError, "spacings"),
        ({"spacings": "1 2 inf"}, SourceError, "spacings"),
        ({"kinds": "domain"}, SourceError, "kinds"),
        ({"sizes": "5 4 3\nsizes: 5 4 3"}, SourceError, "sizes: is there twice"),
        ({"content": "x\nno field"}, SourceError, "'no field' is no field"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, fields, error, words):
    values = random_image((5, 4, 3))
    (tmp_path / "a.nrrd").write_bytes(header(values, fields) + values.tobytes(order="F"))
    check_refused(lambda: read_source(tmp_path / "a.nrrd"), error, str(tmp_path / "a.nrrd"), words, folder=tmp_path)


def test_claims_of_packed_voxels_are_refused_before_memory_is_taken(tmp_path):
    values = random_image((5, 4, 3))
    for sizes in ("60000 60000 60000", "5 4 4"):
        head = header(values, {"encoding": "gzip", "sizes": sizes})
        (tmp_path / "a.nrrd").write_bytes(head + gzip.compress(values.tobytes()))
        check_refused(lambda: read_source(tmp_path / "a.nrrd"), SourceError, "claims", folder=tmp_path)


@pytest.mark.parametrize(
    "data, words",
    [(b"", "not an NRRD"), (b"NRRD", "not an NRRD"), (b"NRRD0009\n\n", "not an NRRD"), (b"NRRD0004\n", "type"),
     (b"NRRD0004\n" + b"#" * (1 << 23), "blank line"), (b"\n", "not an NRRD"), (b"text\n\n", "not an NRRD")],
)  # fmt: skip
def test_what_is_no_header_is_refused(tmp_path, data, words):
    (tmp_path / "a.nrrd").write_bytes(data)
    check_refused(
        lambda: read_source(tmp_path / "a.nrrd"), SourceError, str(tmp_path / "a.nrrd"), words, folder=tmp_path
    )


def test_voxels_that_are_not_beside_their_header_are_named(tmp_path):
    values = random_image((5, 4, 3))
    path = write_nrrd(tmp_path / "a.nhdr", values, data_file="a.raw")
    (tmp_path / "a.raw").unlink()
    check_refused(lambda: read_source(path), SourceError, "a.raw is not beside it", folder=tmp_path)
    (tmp_path / "a.raw.gz").write_bytes(b"other")
    check_refused(lambda: read_source(path), UnsupportedImageError, "a.raw.gz", folder=tmp_path)
    path.write_bytes(header(values, {"data file": "../secret.raw"}))
    check_refused(lambda: read_source(path), UnsupportedImageError, "data file", folder=tmp_path)
    write_nrrd(path, values)
    check_refused(lambda: read_source(path), SourceError, "data file: is missing", folder=tmp_path)


def test_damaged_gzip_streams_are_named(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", random_image((5, 4, 3)), encoding="gzip")
    path.write_bytes(path.read_bytes()[:-6])
    check_refused(lambda: read_source(path), SourceError, str(path), "gzip", folder=tmp_path)
