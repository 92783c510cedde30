"""A conversion of three images dies, or a disk fails, at every operation: the same command makes it whole.

The long run, with more qualities and 200 random kills, is tools/crash_convert.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nibabel")

from tools import crash_convert, crash_living
from tools.crash_convert import Case, Trial, matrix, random_kills


@pytest.fixture(scope="module")
def trial():
    with crash_convert.scratch() as folder:
        yield Trial(Path(folder), {"lossless": True})


@pytest.fixture(scope="module")
def folders():
    """The same with stores that are folders."""
    with crash_convert.scratch() as folder:
        yield Trial(Path(folder), {"lossless": True, "store": "zarr"})


def test_every_operation_on_the_destination_is_seen(trial):
    names = {text.split()[0] for text in trial.operations}
    assert {"os.mkdir", "open", "write", "fsync", "os.link", "os.rename", "os.remove", "os.rmdir"} <= names
    assert len(trial.operations) > 60
    assert len([key for key in trial.wanted if key.endswith("manifest.jsonl")]) == 1
    assert len([key for key in trial.wanted if key.endswith(".ozx")]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["die", "torn", "ENOSPC", "EIO"])
def test_the_same_command_makes_it_whole_whatever_happened_wherever(trial, kind):
    cases = matrix(trial, (kind,))
    assert len(cases) > 30
    wrong = {f"{case.kind} at {case.at}": text for case in cases if (text := trial.check(case))}
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["die", "ENOSPC"])
def test_stores_that_are_folders_are_whole_as_well(folders, kind):
    wrong = {f"{case.kind} at {case.at}": text for case in matrix(folders, (kind,)) if (text := folders.check(case))}
    assert not wrong


@pytest.mark.slow
def test_after_a_kill_at_a_random_time(trial):
    assert random_kills(trial, 8, seed=1) == []


def test_the_check_itself_sees_what_is_wrong(trial):
    trial.clear()
    assert trial.run(Case("none", 0)) == 0
    assert trial.compare() == ""
    chunk = next(trial.archive.rglob("*.ozx"))
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1])
    assert "differs" in trial.compare()
    chunk.write_bytes(data)
    (trial.folder / ".inrstore-left").mkdir()
    assert "left behind" in trial.compare()
    trial.clear()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["ozx", "zarr"])
@pytest.mark.parametrize("command", crash_living.COMMANDS)
def test_a_change_of_an_archive_that_was_stopped_is_made_whole_by_the_same_command(command, store):
    found = crash_living.run(command, store, ("die", "EIO"), 4, print)
    assert found["disturbances"] > 8 and not found["wrong"]
