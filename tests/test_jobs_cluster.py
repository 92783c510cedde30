"""The same job on workers of dask.distributed: the same archive, and a worker that dies costs its task only."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest
from archives import bids_dataset, bulk_zip
from common import needs_torch, random_image, tree, write_nifti
from trees import images

import inrstore
from inrstore.archive.cluster import Cluster
from inrstore.archive.record import JOURNAL
from inrstore.errors import StoreError

pytest.importorskip("distributed")

import dask
from distributed import Client, LocalCluster, WorkerPlugin


@pytest.fixture(scope="module")
def workers():
    """Two worker processes with one thread each, and a client."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as local:
        with Client(local) as client:
            yield client


def same_archive(one, other):
    """Check that two archives are equal, also in their manifests, but for the order of the journal."""
    left, right = tree(one), tree(other)
    for name in (JOURNAL, ".inrstore/lock"):
        assert name in left and name in right
        del left[name], right[name]
    assert left == right


def test_workers_make_the_archive_that_one_process_makes(tmp_path, workers):
    source = bids_dataset(tmp_path / "in")
    bulk_zip(source / "sourcedata/1_20250_2_0.zip", tmp_path / "scratch")
    write_nifti(source / "sourcedata/labels.nii", random_image((5, 4, 3)))
    local = inrstore.convert(source, tmp_path / "local", max_error=1)
    spread = inrstore.convert(source, tmp_path / "spread", max_error=1, scheduler=workers)
    same_archive(tmp_path / "local", tmp_path / "spread")
    names = ("complete", "converted", "copied", "stored_bytes", "ratio", "psnr", "modes")
    assert {name: getattr(local, name) for name in names} == {name: getattr(spread, name) for name in names}


@pytest.mark.fit
@needs_torch
def test_networks_are_the_same_on_workers(tmp_path, workers, monkeypatch):
    from inrstore.chunk.inr.fit import search

    monkeypatch.setitem(search.EFFORTS, "fast", search.EFFORTS["fast"])  # put back at the end
    hurry()
    workers.run(hurry)
    source = tmp_path / "in"
    source.mkdir()
    write_nifti(source / "dwi.nii", random_image((24, 24, 12, 6)))
    options = {"psnr": 20, "preset": "fast", "mode": "siren", "device": "cpu"}
    assert inrstore.convert(source, tmp_path / "local", **options).modes == {"siren": 1}
    inrstore.convert(source, tmp_path / "spread", scheduler=workers, **options)
    same_archive(tmp_path / "local", tmp_path / "spread")


def hurry():
    """Let networks be fitted in seconds."""
    from inrstore.chunk.inr.fit import search

    search.EFFORTS["fast"] = search.Effort(probe=60, fit=300, rounding=150, samples=1024, widest=32, retries=1)


def test_bad_subjects_are_failures_on_workers_too(tmp_path, workers):
    source = images(tmp_path / "in", 4)
    (source / "sub-2_bold.nii.gz").write_bytes(b"no image")
    address = workers.scheduler.address
    report = inrstore.convert(source, tmp_path / "out", lossless=True, scheduler=address)
    assert (report.complete, report.converted, report.failed) == (False, 3, 1)
    assert "sub-2_bold.nii.gz" in report.failures[0]["reason"]
    write_nifti(source / "sub-2_bold.nii.gz", random_image((6, 5, 4), seed=2))
    again = inrstore.convert(source, tmp_path / "out", lossless=True, scheduler=workers)
    assert (again.complete, again.resumed) == (True, 3)


def test_progress_of_all_workers_comes_in_one_view(tmp_path, workers):
    source = images(tmp_path / "in", 6)
    steps = []
    inrstore.convert(source, tmp_path / "out", lossless=True, scheduler=workers, progress=steps.append)
    assert steps[-1].done == steps[-1].total == 6
    assert {key for step in steps for key in step.running} == {f"sub-{number}_bold.nii.gz" for number in range(6)}
    assert not steps[-1].running


def test_a_killed_worker_costs_only_its_task(tmp_path):
    """Eight images, two workers; one is killed while it is converting."""
    source = images(tmp_path / "in", 8, (40, 40, 30))
    inrstore.convert(source, tmp_path / "local", lossless=True)
    killed = []
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as local:
        with Client(local) as client:
            client.run(slow)
            pids = list(client.run(os.getpid).values())

            def kill(step):
                if step.done >= 2 and step.running and not killed:
                    killed.append(pids[0])
                    os.kill(pids[0], signal.SIGKILL)

            report = inrstore.convert(
                source, tmp_path / "spread", lossless=True, scheduler=client, batch=1, progress=kill
            )
    assert killed
    assert report.complete, report.failures
    assert report.converted == 8
    same_archive(tmp_path / "local", tmp_path / "spread")
    assert inrstore.verify(tmp_path / "spread", source).stores == 8


def test_a_result_that_dies_with_its_worker_is_made_again(tmp_path, monkeypatch):
    source = images(tmp_path / "in", 3)
    inrstore.convert(source, tmp_path / "local", lossless=True)
    lost = []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        take = Cluster._next

        def next_and_lose_it(self, view):
            number = take(self, view)
            if number is not None and not lost:
                future, _ = self._pending[number]
                (address,) = client.who_has([future])[future.key]
                pid = client.run(os.getpid, workers=[address])[address]
                os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + 60
                while future.status != "lost" and time.monotonic() < deadline:
                    time.sleep(0.001)
                lost.append(future.status)
            return number

        monkeypatch.setattr(Cluster, "_next", next_and_lose_it)
        report = inrstore.convert(source, tmp_path / "spread", lossless=True, scheduler=client, batch=1)
    assert lost == ["lost"] and report.complete and report.converted == 3
    same_archive(tmp_path / "local", tmp_path / "spread")


def slow():
    """Make workers slow enough to be met in the middle of an image."""
    from inrstore.store import conversion

    finish = conversion.Conversion.finish

    def slower(self, clock):
        time.sleep(0.5)
        return finish(self, clock)

    conversion.Conversion.finish = slower


def test_an_image_that_kills_every_worker_is_a_failure_and_not_the_end(tmp_path):
    source = images(tmp_path / "in", 3)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        client.register_plugin(Deadly())
        report = inrstore.convert(source, tmp_path / "out", lossless=True, scheduler=client, batch=2)
    assert (report.converted, report.failed) == (2, 1)
    (failure,) = report.failures
    assert failure["key"] == "sub-1_bold.nii.gz"
    assert "memory" in failure["reason"]


class Deadly(WorkerPlugin):
    """Ends every worker that reads one image, as a system does that is out of memory."""

    def setup(self, worker):
        from inrstore.archive import work

        read = work.read_image

        def read_or_die(place, key):
            if "sub-1" in key:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(place, key)

        if read.__name__ != "read_or_die":
            work.read_image = read_or_die


def test_a_scheduler_that_goes_away_stops_the_job_which_goes_on_later(tmp_path):
    source = images(tmp_path / "in", 6)
    local = LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0")
    with Client(local) as client:
        client.run(slow)
        stop = threading.Thread(target=local.close)

        def close(step):
            if step.done == 2 and not stop.ident:
                stop.start()

        with pytest.raises(StoreError, match="same command goes on"):
            inrstore.convert(source, tmp_path / "out", lossless=True, scheduler=client, progress=close)
        stop.join()
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert report.complete
    assert report.resumed >= 2


def test_no_scheduler_at_an_address_is_an_error(tmp_path, monkeypatch):
    source = images(tmp_path / "in", 1)
    monkeypatch.setattr("inrstore.archive.cluster.CONNECT", "1s")
    with pytest.raises(StoreError, match=re.escape("tcp://127.0.0.1:9")):
        inrstore.convert(source, tmp_path / "out", lossless=True, scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_workers_are_started_and_stopped_by_the_command(tmp_path):
    source = images(tmp_path / "in", 2)
    report = inrstore.convert(source, tmp_path / "out", lossless=True, workers=2)
    assert (report.complete, report.converted) == (True, 2)


def test_workers_replace_what_changed(tmp_path, workers):
    source = images(tmp_path / "in", 4)
    inrstore.convert(source, tmp_path / "out", lossless=True, scheduler=workers)
    write_nifti(source / "sub-2_bold.nii.gz", random_image((6, 5, 4), seed=40))
    shown = []
    report = inrstore.update(source, tmp_path / "out", scheduler=workers, show=shown.append)
    assert report.complete and (shown[0].counts["changed"], shown[0].counts["same"]) == (1, 3)
    assert inrstore.verify(tmp_path / "out", source).stores == 4
