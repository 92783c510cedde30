"""An archive of a BIDS dataset is a BIDS derivative; the validator of BIDS agrees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from archives import bids_dataset, make_archive
from common import DATA

from inrstore.archive.copies import IGNORED, description, ignore
from inrstore.errors import SourceError

WHOLE = {"Name": "Möwe", "BIDSVersion": "1.10.0", "Authors": ["A"], "DatasetDOI": "doi:10.0/x", "DatasetType": "raw"}


def made(values, source="/data/scans", raw=None):
    data = json.dumps(values).encode() if raw is None else raw
    return json.loads(description(data, version="1.2.3", source=source, label="in/dataset_description.json"))


def test_the_description_is_that_of_a_derivative():
    found = made(WHOLE)
    assert (found["Name"], found["BIDSVersion"], found["Authors"]) == ("Möwe", "1.10.0", ["A"])
    assert found["DatasetType"] == "derivative"
    (by,) = found["GeneratedBy"]
    assert (by["Name"], by["Version"]) == ("inrstore", "1.2.3")
    assert found["SourceDatasets"] == [{"DOI": "doi:10.0/x"}]
    assert "DatasetDOI" not in found, "it is not that of the archive"


@pytest.mark.parametrize(
    "source, url",
    [
        ("/home/somebody/my scans/", "my%20scans"),
        ("C:\\data\\scans", "scans"),
        ("s3://bucket/scans", "s3://bucket/scans"),
    ],
)
def test_a_path_is_not_given_away(source, url):
    assert made({"Name": "x"}, source)["SourceDatasets"] == [{"URL": url}]


def test_a_derivative_of_a_derivative_says_so():
    before = {"GeneratedBy": [{"Name": "fmriprep"}], "SourceDatasets": [{"DOI": "doi:10.0/raw"}], "Name": "x"}
    found = made(before)
    assert [by["Name"] for by in found["GeneratedBy"]] == ["fmriprep", "inrstore"]
    assert found["SourceDatasets"] == [{"DOI": "doi:10.0/raw"}, {"URL": "scans"}]


@pytest.mark.parametrize(
    "raw, words",
    [(b"", "JSON"), (b"[]", "object"), (b"\xff\xfe", "JSON"), (b"[" * 100_000, "JSON"),
     (b'{"GeneratedBy": "me"}', "GeneratedBy"), (b'{"SourceDatasets": [1]}', "SourceDatasets")],
    ids=["empty", "list", "utf16", "deep", "generated", "sources"],
)  # fmt: skip
def test_a_description_that_is_none_is_named(raw, words):
    with pytest.raises(SourceError, match=words) as caught:
        made(None, raw=raw)
    assert "in/dataset_description.json" in str(caught.value)


def test_a_mark_at_the_start_of_the_file_is_allowed():
    assert made(None, raw=b'\xef\xbb\xbf{"Name": "x"}')["Name"] == "x"


@pytest.mark.parametrize("container", ["ozx", "zarr"])
def test_what_stores_are_is_ignored_by_validators(container):
    lines = "".join(f"{line}\n" for line in IGNORED[container]).encode()
    for before, after in ((None, b""), (b"", b""), (b"extra/", b"extra/\n"), (b"a\n\n", b"a\n\n")):
        assert ignore(before, container) == after + lines
    assert ignore(b"a\n" + lines + b"b", container) == b"a\n" + lines + b"b"


# ---- the validator

PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
VALIDATOR = shutil.which("bids-validator-deno", path=PLACES)
needs_validator = pytest.mark.skipif(
    VALIDATOR is None or shutil.which("deno", path=PLACES) is None,
    reason="bids-validator-deno and deno are not installed (pip install bids-validator-deno deno)",
)


def shared_dataset(folder: Path) -> Path:
    """Make a valid BIDS dataset of real scans: names and a JSON field are set right, CT, which BIDS lacks, ignored."""
    scans = sorted(DATA.glob("sub-s*/*/*"))
    if not scans:
        pytest.skip(f"the real scans are not at {DATA}")
    for path in scans:
        name = path.relative_to(DATA).as_posix().replace("_desc-brats", "")
        if "sub-s03" in name or "sub-s11" in name or "sub-s12" in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
    task = folder / "sub-s12/func/sub-s12_task-oneback_bold.json"
    task.write_text(json.dumps({**json.loads(task.read_text()), "TaskName": "oneback"}))
    values = {"Name": "Shared scans", "BIDSVersion": "1.10.0", "License": "various", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(values))
    (folder / "README.md").write_text("Scans of several vendors.\n")
    (folder / ".bidsignore").write_text("sub-*/ct\n")
    return folder


def complaints(folder: Path) -> list[tuple[str, str]]:
    """Return code and place of every error that the validator finds."""
    assert VALIDATOR is not None
    done = subprocess.run([VALIDATOR, str(folder), "--json"], capture_output=True, timeout=120,
                          env={**os.environ, "PATH": PLACES})  # fmt: skip
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [(issue["code"], issue.get("location", "")) for issue in issues if issue["severity"] == "error"]


@needs_validator
def test_the_validator_finds_what_is_wrong(tmp_path):
    dataset = bids_dataset(tmp_path / "in")
    (dataset / "sub-01/anat/notes.txt").write_text("?")
    assert "NOT_INCLUDED" in {code for code, _ in complaints(dataset)}


@needs_validator
@pytest.mark.parametrize("store", ["ozx", "zarr"])
def test_an_archive_of_a_small_dataset_is_valid(tmp_path, store):
    dataset = bids_dataset(tmp_path / "in")
    before = complaints(dataset)
    assert complaints(make_archive(dataset, tmp_path / "archive", store=store)) == [] == before


@needs_validator
@pytest.mark.real
def test_an_archive_of_real_scans_is_valid(tmp_path):
    dataset = shared_dataset(tmp_path / "in")
    assert complaints(dataset) == []
    assert complaints(make_archive(dataset, tmp_path / "archive")) == []
