"""Real scans through one command each: a BIDS tree, a UK Biobank zip, a folder of zips, DICOM; there and back."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from common import DATA, opened, real_scan, tree, write_nifti

import inrstore
from inrstore.cli.app import app

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Every scan at hand as a BIDS dataset."""
    real_scan("sub-s03")
    folder = tmp_path_factory.mktemp("bids") / "in"
    for path in sorted(DATA.glob("sub-*/*/*")):
        (folder / path.relative_to(DATA)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(DATA))
    (folder / "dataset_description.json").write_text('{"Name": "Scans", "BIDSVersion": "1.10.0", "License": "various"}')
    return folder


def run(*arguments):
    """Run the command line here; return what it prints as JSON."""
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def unzipped(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


@pytest.mark.slow
def test_a_bids_tree_of_every_scan_there_and_back(tmp_path, dataset):
    before = tree(dataset)
    converted = run("convert", dataset, tmp_path / "archive", "--lossless", "--report", tmp_path / "report.html")
    scans = sorted(dataset.rglob("*.nii.gz"))
    assert converted["complete"]
    assert converted["converted"] == len(scans) >= 12
    assert converted["failed"] == 0
    verified = run("verify", tmp_path / "archive", "--against", dataset)
    assert verified["against"] == str(dataset)
    run("export", tmp_path / "archive", tmp_path / "back")
    names = sorted(p.relative_to(dataset) for p in dataset.rglob("*") if p.is_file())
    assert sorted(p.relative_to(tmp_path / "back") for p in (tmp_path / "back").rglob("*") if p.is_file()) == names
    for name in names:
        assert unzipped(tmp_path / "back" / name) == unzipped(dataset / name), name
    assert tree(dataset) == before
    page = (tmp_path / "report.html").read_text()
    assert all(scan.name.removesuffix(".nii.gz") in page for scan in scans)
    assert page.count("data:image/png;base64,") == len(scans)


def bulk_zip(path: Path) -> Path:
    """Make a zip laid out like UK Biobank's field 20250 from a real scan."""
    scan = real_scan("sub-s01")
    rng = np.random.default_rng(0)
    volume = np.asarray(nib.load(scan).dataobj[..., 0])
    mask = write_nifti(path.with_suffix(".mask.nii.gz"), (volume > volume.mean()).astype(np.uint8))
    stem = str(scan).removesuffix(".nii.gz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.comment = b"bulk"
        out.writestr(zipfile.ZipInfo("dMRI/", (2014, 5, 1, 1, 2, 4)), b"")
        out.write(scan, "dMRI/dMRI/data.nii.gz")
        out.write(f"{stem}.bval", "dMRI/dMRI/bvals")
        out.write(f"{stem}.bvec", "dMRI/dMRI/bvecs")
        out.write(mask, "dMRI/dMRI/nodif_brain_mask.nii.gz", zipfile.ZIP_STORED)
        out.writestr("dMRI/dMRI/data.eddy_parameters", rng.bytes(5000))
        out.writestr("dMRI/unusable/readme.txt", "nothing")
    mask.unlink()
    return path


@pytest.mark.slow
def test_a_uk_biobank_zip_there_and_back(tmp_path):
    source = bulk_zip(tmp_path / "1000223_20250_2_0.zip")
    run("convert", source, tmp_path / "archive", "--max-error", "20")
    assert run("verify", tmp_path / "archive", "--against", source)["against"] == str(source)
    store = tmp_path / "archive/dMRI/dMRI/data.ozx"
    assert opened(store)["bval"].shape == (33,)
    assert inrstore.info(tmp_path / "archive/dMRI/dMRI/nodif_brain_mask.ozx").lossless
    run("export", tmp_path / "archive", tmp_path / "back.zip")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "back.zip") as new:
        assert new.testzip() is None
        assert new.comment == old.comment
        fields = ("filename", "date_time", "external_attr", "create_system", "compress_type", "comment")
        for one, other in zip(old.infolist(), new.infolist(), strict=True):
            assert [getattr(one, f) for f in fields] == [getattr(other, f) for f in fields]
            was, now = old.read(one), new.read(other)
            if not one.filename.endswith("data.nii.gz"):
                was, now = ((gzip.decompress(d) if one.filename.endswith(".gz") else d) for d in (was, now))
                assert was == now
            else:
                was, now = gzip.decompress(was), gzip.decompress(now)
                assert was[:352] == now[:352]
                voxels = [np.frombuffer(d[352:], "<i2").astype(int) for d in (was, now)]
                assert 0 < np.abs(voxels[0] - voxels[1]).max() <= 20


def test_a_folder_of_zips_is_rebuilt(tmp_path, dataset):
    folder = tmp_path / "zips"
    folder.mkdir()
    for number, name in enumerate(("sub-s03", "sub-s06tiny")):
        with zipfile.ZipFile(folder / f"10000{number}_20250_2_0.zip", "w") as out:
            scan = real_scan(name)
            out.write(scan, "dMRI/dMRI/data.nii.gz")
            out.write(str(scan).replace(".nii.gz", ".bval"), "dMRI/dMRI/bvals")
    run("convert", folder, tmp_path / "archive", "--lossless", "--workers", "2")
    assert run("verify", tmp_path / "archive", "--against", folder)["against"] == str(folder)
    run("export", tmp_path / "archive", tmp_path / "back")
    for path in folder.iterdir():
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "back" / path.name) as new:
            assert old.namelist() == new.namelist()
            for name in old.namelist():
                one, other = old.read(name), new.read(name)
                assert one == other or gzip.decompress(one) == gzip.decompress(other)


@pytest.mark.parametrize("name, count", [("dwi_uih_explicitvrle", 1), ("ct_siemens_j2k_lossless", 1)])
def test_both_dicom_folders_convert_and_verify(tmp_path, name, count):
    pytest.importorskip("dcm2niix")
    source = DATA / "dicom" / name
    if not source.is_dir():
        pytest.skip(f"the DICOM files are not at {source}")
    assert run("convert", source, tmp_path / "archive", "--lossless")["converted"] == count
    assert run("verify", tmp_path / "archive", "--against", source)["against"] == str(source)
    (store,) = (tmp_path / "archive").glob("*.ozx")
    assert store.with_suffix(".json").is_file()
    run("export", tmp_path / "archive", tmp_path / "back")
    (image,) = (tmp_path / "back").glob("*.nii*")
    voxels = np.asarray(nib.load(image).dataobj)
    if name.startswith("dwi"):
        wanted = np.asarray(nib.load(real_scan("sub-s03")).dataobj)
        assert hashlib.sha256(voxels.tobytes()).digest() == hashlib.sha256(wanted.tobytes()).digest()
    else:
        assert voxels.shape[2] == 10
