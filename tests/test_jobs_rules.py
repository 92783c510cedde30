"""What is done with each image: rules files, modalities, labels, globs."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrstore.archive.rules import (
    Rules,
    is_label_name,
    mask_beside,
    matches,
    modality_of_zip,
    read_rules,
    suffix_of,
)
from inrstore.errors import ConfigurationError, SourceError
from inrstore.store.options import Options
from inrstore.store.quality import Quality

BASE = Options(quality=Quality(psnr=40.0))
LOSSLESS = Quality(lossless=True)


def rules(tmp_path, text, *, asked=False):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return read_rules(str(path), BASE, asked=asked)


def test_the_first_rule_that_fits_wins_and_default_is_for_the_rest(tmp_path):
    found = rules(tmp_path, """
        [T1w]
        lossless = true
        ["*/func/*"]
        rmse = 4
        preset = "fast"
        [bold]
        max_error = 2
        [default]
        psnr = 45
        preset = "small"
    """)  # fmt: skip
    t1 = found.choose("sub-1/anat/sub-1_T1w.nii.gz").options
    assert (t1.quality, t1.preset) == (LOSSLESS, "small")
    func = found.choose("sub-1/func/sub-1_bold.nii.gz").options
    assert (func.quality, func.preset) == (Quality(rmse=4.0), "fast")
    assert found.choose("sub-1_bold.nii").options.quality == Quality(max_error=2)
    assert found.choose("sub-1_FLAIR.nii").options.quality == Quality(psnr=45.0)
    assert found.choose("sub-1_T1w.hdr").options.quality == LOSSLESS


def test_a_zip_of_the_uk_biobank_has_a_modality(tmp_path):
    found = rules(tmp_path, "[dwi]\npsnr = 36\n[T1w]\nlossless = true\n[swi]\nkeep = 'file'\n")
    assert found.choose("1_20250_2_0/dMRI/dMRI/data.nii.gz", "1_20250_2_0.zip").options.quality == Quality(psnr=36.0)
    assert found.choose("T1/T1.nii.gz", "1000223_20252_2_0.zip").options.quality == LOSSLESS
    assert found.choose("SWI/SWI.nii.gz", "1_20251_2_0.zip").keep
    assert found.choose("dMRI/data.nii.gz", "scans.zip").options.quality == Quality(psnr=40.0)
    names = {"1_20253_3_0.zip": "FLAIR", "1_20227_2_0.zip": "bold", "1_20249_2_0.zip": "bold", "1_9_2_0.zip": ""}
    for name, modality in names.items():
        assert modality_of_zip(name) == modality


@pytest.mark.parametrize(
    "path",
    ["sub-1_dseg.nii.gz", "a/nodif_brain_mask.nii.gz", "aparc+aseg.nii.gz", "roi-left.nii", "sub-1_desc-brain_mask.nii",
     "x/Labels.nii", "atlas.nii.gz"],
)  # fmt: skip
def test_labels_are_lossless_and_unmasked_unless_a_rule_names_them(tmp_path, path):
    found = rules(tmp_path, "[dwi]\npsnr = 30\n[default]\npsnr = 35\nmask = 'm.nii.gz'\n")
    for bulk in ("", "1_20250_2_0.zip"):
        options = found.choose(path, bulk).options
        assert (options.quality, options.mask) == (LOSSLESS, "")
    named = rules(tmp_path, f"['{path}']\npsnr = 30\n").choose(path)
    assert named.options.quality == Quality(psnr=30.0)
    assert named.named


@pytest.mark.parametrize(
    "path", ["sub-1_T1w.nii.gz", "mask/sub-1_dwi.nii.gz", "masked.nii", "segment.nii", "a_m0scan.nii"]
)
def test_other_names_are_no_labels(path):
    assert not is_label_name(path)


def test_a_default_can_keep_every_image_as_a_file(tmp_path):
    found = rules(tmp_path, "[T1w]\nlossless = true\n[default]\nkeep = 'file'\n")
    assert found.choose("a_bold.nii").keep
    assert not found.choose("a_T1w.nii").keep


@pytest.mark.parametrize(
    "text, words",
    [
        ("psnr = 40", ["psnr", "outside a table"]),
        ("[T1w]\nprsn = 40", ["[T1w]", "prsn", "psnr, rmse"]),
        ("[T1w]\npsnr = 'high'", ["[T1w]", "psnr", "number"]),
        ("[T1w]\npsnr = true", ["psnr", "number"]),
        ("[T1w]\nlossless = 1", ["lossless", "true or false"]),
        ("[T1w]\npsnr = -3", ["[T1w]", "psnr"]),
        ("[T1w]\npsnr = 40\nrmse = 2", ["[T1w]", "psnr", "rmse"]),
        ("[T1w]\npreset = 'slow'", ["preset", "balanced"]),
        ("[T1w]\nkeep = 'all'", ["keep", "file"]),
        ("['sub 1']\npsnr = 3", ["sub 1", "neither"]),
        ("[T1w.more]\npsnr = 3", ["T1w", "more"]),
        ("[T1w", ["not TOML"]),
    ],
)
def test_what_is_wrong_in_a_rules_file_is_named(tmp_path, text, words):
    with pytest.raises(ConfigurationError) as caught:
        rules(tmp_path, text)
    for word in ["rules.toml", *words]:
        assert word in str(caught.value)


def test_quality_is_given_once(tmp_path):
    with pytest.raises(ConfigurationError, match="default"):
        rules(tmp_path, "[default]\npsnr = 30", asked=True)
    assert rules(tmp_path, "[dwi]\npsnr = 30", asked=True).choose("a_dwi.nii").options.quality == Quality(psnr=30.0)


def test_a_missing_rules_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.toml"):
        read_rules(str(tmp_path / "none.toml"), BASE, asked=False)


@pytest.mark.parametrize(
    "glob, path, fits",
    [
        ("*.nii.gz", "a/b/c.nii.gz", True), ("*/anat/*", "sub-1/ses-1/anat/x.nii", True), ("*/anat/*", "anat/x", False),
        ("**/anat/*", "anat/x", True), ("**/anat/*", "s/anat/x", True), ("sub-0[12]/**", "sub-02/a/b", True),
        ("sub-0[!12]/**", "sub-02/a/b", False), ("a?c", "abc", True), ("a?c", "abbc", False), ("A*", "abc", False),
        ("a.b", "axb", False), ("sub-01", "sub-01/x", False), ("[", "[", True), ("a+(b)", "a+(b)", True),
    ],
)  # fmt: skip
def test_globs(glob, path, fits):
    assert matches(glob, path) == fits


def _by_backtracking(glob: str) -> re.Pattern[str]:
    """Return what a glob means as one expression, whose search can take long."""
    text = ""
    for part in re.split(r"(\*\*/|\*+|\?|\[[^\]]+\])", glob):
        if part == "**/":
            text += "(?:.*/)?"
        elif part.startswith("*"):
            text += ".*"
        elif part == "?":
            text += "."
        elif part.startswith("[") and part.endswith("]"):
            inside = re.sub(r"([\\\[&~|^])", r"\\\1", part[1:-1].removeprefix("!"))
            text += re.compile(f"[{'^' if part[1] == '!' else ''}{inside}]").pattern  # each is one by itself
        else:
            text += re.escape(part)
    return re.compile(text, re.DOTALL)


_PARTS = st.sampled_from(["a", "b", "/", "_", ".", "\n", "é", "*", "**", "**/", "***/", "?", "[ab]", "[!ab]", "[a-c]",
                          "[", "]", "[!]", "[]a]", "[^a]", "[a^]", "[\\]", "[*]", "[/]", "[b-a]"])  # fmt: skip


@given(st.lists(_PARTS, max_size=9).map("".join), st.text("ab/_.\né*[]^\\c", max_size=9))
@settings(max_examples=3000, deadline=None)
def test_a_glob_means_what_its_expression_means(glob, path):
    try:
        expected = _by_backtracking(glob).fullmatch(path) is not None
    except re.error:
        with pytest.raises(ConfigurationError, match="is not a glob"):
            matches(glob, path)
    else:
        assert matches(glob, path) == expected


@pytest.mark.parametrize("glob", ["[!]", "[!][!]", "[b-a]", "x[!]*"])
def test_a_set_that_is_none_is_refused(glob):
    with pytest.raises(ConfigurationError, match="is not a glob"):
        matches(glob, "")


@pytest.mark.parametrize(
    "glob",
    ["*_*_*_*.nii.gz", "**/_**/_**/_**/x", "*?*?*?*?*x", "[_]*" * 20 + "x", "*" * 500 + "x", "**/*" * 50 + "x"],
)
@pytest.mark.parametrize("path", ["_" * 1000, "_/" * 500, "a_" * 500])
def test_no_glob_takes_long_on_any_name(glob, path):
    matches(glob, path)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert not matches(glob, path)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.002


def test_exclusion_wins():
    selection = Rules(base=BASE, include=("*.nii.gz", "*.json"), exclude=("*/raw/*",))
    assert selection.takes("a/x.nii.gz")
    assert not selection.takes("a/raw/x.nii.gz")
    assert not selection.takes("a/x.txt")
    assert Rules(base=BASE).takes("anything")


def test_masks_are_looked_up_beside_the_image():
    assert mask_beside("a/dMRI/data.nii.gz", "nodif_brain_mask.nii.gz") == "a/dMRI/nodif_brain_mask.nii.gz"
    assert mask_beside("sub-1_dwi.nii.gz", "{entities}_mask.nii.gz") == "sub-1_mask.nii.gz"
    assert mask_beside("a/x.hdr", "{name}_m.nii") == "a/x_m.nii"
    for mask in ("", "/m.nii", "s3://b/m.nii"):
        assert mask_beside("a/x.nii", mask) is None


def test_suffixes():
    assert suffix_of("sub-1/dwi/sub-1_acq-b_dwi.nii.gz") == "dwi"
    assert suffix_of("T1w.nii") == "T1w"


def test_rules_are_recorded_as_json(tmp_path):
    found = rules(tmp_path, "[T1w]\nlossless = true\npreset = 'fast'\n['*x*']\nkeep = 'file'\n")
    assert found.to_dict() == [
        {"name": "T1w", "lossless": True, "preset": "fast"},
        {"name": "*x*", "keep": "file"},
    ]
    assert Rules(base=BASE).to_dict() == []
