"""Gradients are found under every convention, and never those of another image."""

from __future__ import annotations

import os

import numpy as np
import pytest
from common import check_refused, random_image, real_scan, write_nifti

from inrstore import limits
from inrstore.errors import SourceError
from inrstore.files.local import Folder
from inrstore.sources import read_image, read_source
from inrstore.sources.gradients import companions


@pytest.fixture
def dwi(tmp_path):
    """A 4-D image of four volumes, without gradients."""
    return write_nifti(tmp_path / "x_dwi.nii.gz", random_image((4, 4, 3, 4)))


BVAL, BVEC = "0 1000 1000 2000", "0 1 0 0\n0 0 1 0\n0 0 0 -0.707\n"


@pytest.mark.parametrize(
    "names",
    [
        ("x_dwi.bval", "x_dwi.bvec"),
        ("x_dwi.bvals", "x_dwi.bvecs"),
        ("x_dwi_bval", "x_dwi_bvecs"),
        ("bvals", "bvecs"),
        ("bval", "bvec"),
    ],
)
def test_gradients_are_found_under_their_usual_names(dwi, names):
    dwi.with_name(names[0]).write_text(BVAL)
    dwi.with_name(names[1]).write_text(BVEC)
    source = read_source(dwi)
    assert source.bval.tolist() == [0, 1000, 1000, 2000]
    assert source.bvec.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, -0.707]]


def test_gradients_in_rows_or_columns(dwi):
    dwi.with_name("x_dwi.bval").write_text("0\n1000\n1000\n2000\n")
    dwi.with_name("x_dwi.bvec").write_text("0 0 0\n1,0,0\n0 1 0\n0 0 -.707\n")
    source = read_source(dwi)
    assert source.bval.tolist() == [0, 1000, 1000, 2000]
    assert source.bvec[3].tolist() == [0, 0, -0.707]


def test_no_gradients(dwi):
    source = read_source(dwi)
    assert source.bval is None
    assert source.bvec is None


def test_gradients_of_another_image_in_the_folder_are_not_taken(dwi):
    dwi.with_name("bvals").write_text("0 1 2")
    assert read_source(dwi).bval is None


def test_a_three_dimensional_image_has_no_gradients(tmp_path):
    plain = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    plain.with_name("a.bval").write_text("0 0 0")
    assert read_source(plain).bval is None


@pytest.mark.parametrize("text", ["0 1000", "0 1 2 x", "0 1\n2 3 4", "0 1 2 nan", "", "\xff"])
def test_gradients_that_do_not_fit_are_named(dwi, text):
    path = dwi.with_name("x_dwi.bval")
    path.write_text(text, "latin-1")
    check_refused(lambda: read_source(dwi), SourceError, str(path), folder=dwi.parent)


@pytest.mark.real
def test_real_gradients_are_read():
    source = read_source(real_scan("sub-s03"))
    assert source.bval.shape == (17,)
    assert source.bvec.shape == (17, 3)
    assert np.allclose(np.linalg.norm(source.bvec[1:], axis=1), 1, atol=1e-3)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_gradients_that_cannot_be_read_are_named(dwi):
    path = dwi.with_name("x_dwi.bval")
    path.write_text(BVAL)
    path.chmod(0)
    with pytest.raises(SourceError, match=r"x_dwi\.bval"):
        read_source(dwi)


def test_a_gradient_file_is_read_up_to_its_limit(dwi, monkeypatch):
    dwi.with_name("x_dwi.bval").write_text(BVAL)
    monkeypatch.setattr(limits, "MAX_SIDECAR_BYTES", len(BVAL))
    assert read_source(dwi).bval is not None
    monkeypatch.setattr(limits, "MAX_SIDECAR_BYTES", len(BVAL) - 1)
    check_refused(lambda: read_source(dwi), SourceError, "x_dwi.bval", "larger", folder=dwi.parent)


# ---- layouts of the large studies --------------------------------------------------------------------------


def lay(folder, layout):
    """Write a tree: an image of so many volumes for a number, a file for a text."""
    for name, what in layout.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, int):
            write_nifti(path, random_image((3, 3, 3, what)))
        else:
            path.write_text(what)
    return Folder(folder)


def row(value, count):
    return " ".join([str(value)] * count)


def first(place, key):
    """Return the first b-value of an image, which tells the tables of these tests apart; None if it has none."""
    bval = read_image(place, key).bval
    return None if bval is None else bval[0]


def test_the_layout_of_uk_biobank(tmp_path):
    place = lay(tmp_path, {
        "dMRI/raw/AP.nii.gz": 4, "dMRI/raw/AP.bval": row(1, 4), "dMRI/raw/AP.bvec": "\n".join([row(1, 4)] * 3),
        "dMRI/raw/PA.nii.gz": 3, "dMRI/raw/PA.bval": row(2, 3),
        "dMRI/dMRI/data.nii.gz": 4, "dMRI/dMRI/data_ud.nii.gz": 4, "dMRI/dMRI/bvals": row(3, 4),
        "dMRI/dMRI/bvecs": "\n".join([row(0, 4)] * 3), "dMRI/dMRI/data.eddy_rotated_bvecs": "\n".join([row(9, 4)] * 3),
        "dMRI/dMRI/data_L1.nii.gz": 3,
    })  # fmt: skip
    assert first(place, "dMRI/raw/AP.nii.gz") == 1
    assert first(place, "dMRI/raw/PA.nii.gz") == 2
    assert first(place, "dMRI/dMRI/data.nii.gz") == first(place, "dMRI/dMRI/data_ud.nii.gz") == 3
    assert first(place, "dMRI/dMRI/data_L1.nii.gz") is None
    assert not read_image(place, "dMRI/dMRI/data.nii.gz").bvec.any(), "the rotated directions are another image's"


def test_the_layout_of_the_human_connectome_project(tmp_path):
    place = lay(tmp_path, {
        "1/T1w/Diffusion/data.nii.gz": 5, "1/T1w/Diffusion/bvals": row(1, 5), "1/T1w/Diffusion/grad_dev.nii.gz": 9,
        "1/unprocessed/3T/Diffusion/1_3T_DWI_dir95_LR.nii.gz": 5,
        "1/unprocessed/3T/Diffusion/1_3T_DWI_dir95_LR.bval": row(2, 5),
    })  # fmt: skip
    assert first(place, "1/T1w/Diffusion/data.nii.gz") == 1
    assert first(place, "1/T1w/Diffusion/grad_dev.nii.gz") is None
    assert first(place, "1/unprocessed/3T/Diffusion/1_3T_DWI_dir95_LR.nii.gz") == 2


IMAGE = "bids/sub-1/ses-2/dwi/sub-1_ses-2_acq-a_dir-AP_dwi.nii.gz"


@pytest.mark.parametrize(
    "name",
    ["dwi.bval", "acq-a_dwi.bval", "dir-AP_dwi.bval", "acq-a_dir-AP_dwi.bval", "sub-1/sub-1_dwi.bval",
     "sub-1/sub-1_dir-AP_dwi.bval", "sub-1/ses-2/sub-1_ses-2_dwi.bval", "sub-1/ses-2/dwi/sub-1_ses-2_acq-a_dwi.bval"],
)  # fmt: skip
def test_gradients_are_inherited_from_above_in_a_bids_tree(tmp_path, name):
    place = lay(tmp_path, {"bids/dataset_description.json": "{}", IMAGE: 4, f"bids/{name}": row(1, 4)})
    assert first(place, IMAGE) == 1
    assert f"bids/{name}" in companions(place, IMAGE)


@pytest.mark.parametrize(
    "name",
    ["acq-b_dwi.bval", "sub-1/sub-1_dir-PA_dwi.bval", "bold.bval", "dir-AP_acq-a_dwi.bval", "../dwi.bval",
     "sub-1/ses-2/dwi/sub-1_ses-2_run-1_dwi.bval", "sub-1/dwi.bval", "sub-2/sub-2_dwi.bval"],
)  # fmt: skip
def test_gradients_of_other_images_are_not_inherited(tmp_path, name):
    place = lay(tmp_path, {"bids/dataset_description.json": "{}", IMAGE: 4, f"bids/{name}": row(1, 4)})
    assert first(place, IMAGE) is None


def test_the_nearest_gradients_win(tmp_path):
    layout = {"dwi.bval": 5, "acq-a_dwi.bval": 4, "sub-1/sub-1_dwi.bval": 3,
              "sub-1/ses-2/dwi/sub-1_ses-2_dwi.bval": 2,
              "sub-1/ses-2/dwi/sub-1_ses-2_acq-a_dir-AP_dwi.bval": 1}  # fmt: skip
    place = lay(tmp_path, {"bids/dataset_description.json": "{}", IMAGE: 4})
    for name, value in layout.items():
        lay(tmp_path, {f"bids/{name}": row(value, 4)})
        assert first(place, IMAGE) == value


def test_inherited_gradients_of_another_length_are_passed_over(tmp_path):
    place = lay(tmp_path, {IMAGE: 4, "bids/sub-1/sub-1_dwi.bval": row(1, 3), "bids/dwi.bval": row(2, 4)})
    assert first(place, IMAGE) == 2


def test_a_name_of_many_entities_takes_no_more_than_a_moment(tmp_path):
    name = "sub-1_" + "_".join(f"e{number}-1" for number in range(30)) + "_dwi.nii.gz"
    assert first(lay(tmp_path, {name: 2}), name) is None


def test_companions_are_the_sidecars_that_are_there(tmp_path):
    place = lay(tmp_path, {"a/x.nii.gz": 2, "a/x.json": "{}", "a/x.bval": "0 1", "a/bvecs": "0", "a/y.nii.gz": 2})
    assert companions(place, "a/x.nii.gz") == ("a/x.json", "a/x.bval", "a/bvecs")
    assert companions(place, "a/y.nii.gz") == ("a/bvecs",)
