"""Object stores as places, claims and journals, against a server process that speaks S3."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import careless_server, fresh_processes, needs_moto, s3_server, web_server

from inrstore import files
from inrstore.errors import ConfigurationError, DestinationHeldError, FileTooLargeError, StoreError
from inrstore.files.remote import ObjectPlace

pytestmark = needs_moto

ODD = ["a b#c", "a%41?b=c&d", "é/ü+ä", "x=1,y;z", "sub-01/dwi (2).nii.gz", "~/$HOME", "quo\"te's", "back\\slash"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket; the environment says how to reach it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.bucket()


@pytest.fixture
def at(bucket):
    return files.place(f"{bucket}/some/prefix")


# Places


def test_what_is_written_is_read_and_listed(at):
    for number, key in enumerate(ODD):
        at.write(key, b"x" * number)
    assert [(entry.key, entry.size) for entry in at.walk()] == sorted(
        ((key, number) for number, key in enumerate(ODD)), key=lambda found: found[0].encode()
    )
    for number, key in enumerate(ODD):
        assert files.read(at, key, 100) == b"x" * number
        assert at.size(key) == number
    assert at.size("a") is None
    at.write("é/ü+ä", b"new")
    assert files.read(at, "é/ü+ä", 3) == b"new"
    with pytest.raises(FileTooLargeError):
        files.read(at, "é/ü+ä", 2)
    assert [entry.key for entry in at.walk("é")] == ["é/ü+ä"]
    for key in ODD:
        at.remove(key)
        at.remove(key)
    assert list(at.walk()) == []


def test_a_place_holds_what_lies_below_it_and_nothing_beside(bucket):
    for key in ["in/a", "in/b/c", "inside", "in.partial/x", "in-2/y"]:
        files.place(bucket).write(key, b"1")
    assert [entry.key for entry in files.place(f"{bucket}/in/").walk()] == ["a", "b/c"]
    assert [entry.key for entry in files.place(bucket).walk("in")] == ["in/a", "in/b/c"]


def test_the_prefix_is_taken_as_it_stands(bucket):
    odd = files.place(f"{bucket}/a%20b#c?d é")
    odd.write("k", b"1")
    assert [entry.key for entry in files.place(bucket).walk()] == ["a%20b#c?d é/k"]
    assert odd.label("k") == f"{bucket}/a%20b#c?d é/k"


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "a/../../b", ".", "a/./b", "a\0b"])
def test_a_key_that_leads_elsewhere_is_refused(at, key):
    for action in (at.open, at.size, at.remove, lambda key: at.write(key, b""), lambda key: at.create(key, [b""])):
        with pytest.raises(ValueError, match="is not a path inside"):
            action(key)


def test_more_objects_than_a_page_are_listed_in_order_and_lazily(server, at):
    keys = [f"{random.Random(i).randrange(50)}/{i}" for i in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: at.write(key, b""), keys))
    at.write("99/last", b"1")
    server.requests()
    walk = at.walk()
    first = next(walk)
    assert sum(method == "GET" for method, _ in server.requests()) == 1
    found = [first, *walk]
    assert [entry.key for entry in found] == sorted([*keys, "99/last"])


def test_objects_that_stand_for_folders_are_no_files(server, bucket):
    name = bucket.removeprefix("s3://")
    for key in ("p/", "p/folder/", "p/empty/"):
        server.put(f"{name}/{key}")
    here = files.place(f"{bucket}/p")
    here.write("folder/a", b"1")
    here.write("nothing", b"")
    assert [(entry.key, entry.size) for entry in here.walk()] == [("folder/a", 1), ("nothing", 0)]


def test_a_large_object_is_read_in_pieces_and_from_anywhere(server, at):
    data = random.Random(0).randbytes(40 << 20)
    at.write("large", data)
    server.requests()
    with at.open("large") as file:
        assert file.read(10) == data[:10]
        assert len(server.requests()) == 1
        assert file.read() == data[10:]
        assert 6 <= len(server.requests()) <= 12, "pieces of 256 KiB growing to 8 MiB"
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read(1) == b""
        server.requests()
        file.seek(20 << 20)
        assert file.read(3) == data[20 << 20 :][:3]
        assert len(server.requests()) == 1


def test_one_member_of_a_large_zip_takes_few_requests(server, at):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as made:
        for number in range(20):
            made.writestr(f"{number}", random.Random(number).randbytes(1 << 20))
    at.write("a.zip", whole.getvalue())
    server.requests()
    with at.open("a.zip") as file, zipfile.ZipFile(file) as found:
        assert found.read("13") == random.Random(13).randbytes(1 << 20)
    assert len(server.requests()) <= 8


def test_an_object_that_changes_while_it_is_read_is_an_error(at):
    at.write("k", bytes(1 << 20))
    with at.open("k") as file:
        file.read(10)
        at.write("k", b"1" * (1 << 20))
        with pytest.raises(OSError, match=r"was changed while it was read.*k"):
            file.read()


def test_blocks_are_written_whole_or_not_at_all(at):
    blocks = [random.Random(i).randbytes(1 << 20) for i in range(20)]
    at.write_blocks("large", iter(blocks))
    at.write_blocks("small", [b"a", b"b"])
    at.write_blocks("empty", [])
    assert files.read(at, "large", 1 << 25) == b"".join(blocks)
    assert files.read(at, "small", 9) + files.read(at, "empty", 9) == b"ab"

    def broken(count):
        yield from blocks[:count]
        raise FileNotFoundError(2, "the source is gone", "source.zip")

    for count in (3, 20):
        with pytest.raises(FileNotFoundError, match="the source is gone"):
            at.write_blocks("large", broken(count))
        with pytest.raises(FileNotFoundError):
            at.write_blocks("new", broken(count))
    assert [entry.key for entry in at.walk()] == ["empty", "large", "small"]
    assert files.read(at, "large", 1 << 25) == b"".join(blocks)


def test_a_place_travels_without_the_credentials(at):
    at.write("k", b"1")
    carried = pickle.dumps(at)
    assert b"secret-of-somebody" not in carried
    assert files.read(pickle.loads(carried), "k", 9) == b"1"


def _create(url: str, own: bytes, count: int, start: float) -> list[bool]:
    here = files.place(url)
    time.sleep(max(0, start - time.time()))
    return [here.create(f"{number}", [own]) for number in range(count)]


def test_of_two_processes_that_create_one_wins(at):
    with fresh_processes(2) as pool:
        start = time.time() + 1
        runs = [pool.submit(_create, at.name, own, 50, start) for own in (b"one", b"two")]
        one, two = (run.result() for run in runs)
    assert [a != b for a, b in zip(one, two, strict=True)] == [True] * 50
    for number in range(50):
        assert files.read(at, f"{number}", 9) == (b"one" if one[number] else b"two")


def test_errors_name_the_url_and_the_reason_in_one_line(server, at, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such object") as missing:
        at.open("none")
    absent = files.place("s3://there-is-no-such-bucket/x")
    with pytest.raises(OSError, match="no such bucket") as no_bucket:
        absent.write("k", b"")
    with pytest.raises(OSError, match="bucket does not exist") as no_list:
        list(absent.walk())
    at.write("k", b"")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(OSError, match="AWS_ALLOW_HTTP") as plain:
        files.place(at.name).size("k")
    with pytest.raises(PermissionError) as forbidden:
        files.place(server.address).size(f"{at.name.removeprefix('s3://')}/k")
    for caught, url in [(missing, at.name), (no_bucket, absent.name), (no_list, absent.name), (plain, at.name),
                        (forbidden, server.address)]:  # fmt: skip
        assert url in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("url", ["ftp://host/a", "s3://", "file:///tmp", "memory:///", "https://h/a?key=1", "://"])
def test_a_url_that_is_not_understood_is_refused_by_name(url):
    with pytest.raises(ConfigurationError) as caught:
        files.place(url)
    assert repr(url) in str(caught.value)


def test_a_container_without_its_account_is_refused(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigurationError, match=r"az://container/x.*Account must be specified"):
        files.place("az://container/x")


def test_a_web_server_is_read_only(tmp_path, server, bucket):
    data = random.Random(0).randbytes(3 << 20)
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b/large").write_bytes(data)
    (tmp_path / "a b/empty").write_bytes(b"")
    name = bucket.removeprefix("s3://")
    server.put(f"{name}/a%20b/large", data, **{"x-amz-acl": "public-read"})
    with web_server(tmp_path) as address:
        # One server sends streams only, the other pieces.
        for here in (files.place(f"{address}/a%20b"), files.place(f"{server.address}/{name}/a%20b")):
            assert here.size("large") == len(data)
            assert files.read(here, "large", len(data)) == data
            with pytest.raises(OSError, match="can only be read"):
                here.write("new", b"")
            with pytest.raises(OSError, match="cannot be listed"):
                next(here.walk())
        assert files.read(files.place(address), "a%20b/empty", 9) == b""
        with pytest.raises(FileNotFoundError):
            files.place(address).open("none")


# Claims


def _claim(place, **times):
    from inrstore.files.claim import Claim

    return Claim(place, "x/claim", "the store", **times)


def test_a_claim_is_held_by_one_and_says_by_whom(at):
    with _claim(at) as claim:
        with pytest.raises(DestinationHeldError, match=rf"the store: being written by .* process {os.getpid()}, since"):
            _claim(at)
        claim.check()
    with _claim(at):
        pass
    claim = _claim(at)
    claim.remove()
    assert list(at.walk()) == []
    with pytest.raises(DestinationHeldError, match="released"):
        claim.check()


def test_a_claim_that_is_kept_fresh_is_not_taken(at):
    with _claim(at, expiry=3, interval=0.3) as claim:
        time.sleep(4.2)
        with pytest.raises(DestinationHeldError):
            _claim(at, expiry=3)
        claim.check()


def test_a_claim_without_a_sign_of_life_is_taken_and_its_holder_told(at):
    old = _claim(at, expiry=600, interval=600)
    time.sleep(2.2)
    with pytest.raises(DestinationHeldError, match="free 60 s after"):
        _claim(at, expiry=60)
    with _claim(at, expiry=1) as new:
        with pytest.raises(DestinationHeldError, match=r"taken over by .* process"):
            old.renew()
        assert not old.held
        with pytest.raises(DestinationHeldError, match="taken over by"):
            old.check()
        old.close()
        old.remove()
        new.renew()


@contextmanager
def _applied_but_failing(monkeypatch):
    """Have a put be applied and answered as if it had failed."""
    real, failed = ObjectPlace._put, []

    def put(self, key, data, mode):
        version = real(self, key, data, mode)
        if not failed:
            failed.append(key)
            raise OSError(5, "internal error", key)
        return version

    with monkeypatch.context() as patched:
        patched.setattr(ObjectPlace, "_put", put)
        yield


def test_a_claim_whose_put_was_applied_and_seemed_to_fail_is_ones_own(at, monkeypatch):
    with _applied_but_failing(monkeypatch), _claim(at) as claim:
        claim.check()
        assert claim.fresh
    with _claim(at) as claim:
        with _applied_but_failing(monkeypatch):
            claim.renew()
        # Where even that could not be read, the next sign of life finds what the last one wrote.
        with (
            _applied_but_failing(monkeypatch),
            monkeypatch.context() as patched,
            pytest.raises(OSError, match="internal error"),
        ):
            patched.setattr(claim, "_fetch", _unreachable)
            claim.renew()
        claim.renew()
        assert claim.held
    with _claim(at, expiry=600):
        pass


def _unreachable():
    raise OSError(5, "internal error")


def test_a_claim_of_another_is_not_taken_for_ones_own(at, monkeypatch):
    old = _claim(at, expiry=600, interval=600)
    time.sleep(2.2)
    with _claim(at, expiry=1) as new:
        with _applied_but_failing(monkeypatch), pytest.raises(DestinationHeldError, match="taken over by"):
            old.renew()
        new.renew()


def test_a_line_whose_put_was_applied_and_seemed_to_fail_does_not_end_the_journal(at, monkeypatch):
    with _journal(at) as journal:
        journal.append({"n": 0})
        with _applied_but_failing(monkeypatch), pytest.raises(OSError, match="internal error"):
            journal.append({"n": "lost"})
        journal.append({"n": 1})
        assert [record["n"] for record in _records(at)] == [0, 1]


def _take(url: str, start: float) -> bool:
    time.sleep(max(0, start - time.time()))
    try:
        _claim(files.place(url), expiry=1)
    except DestinationHeldError:
        return False
    time.sleep(2)  # alive while the others try
    return True


def test_of_processes_that_take_over_a_stale_claim_one_wins(at):
    _claim(at, expiry=600, interval=600)
    with fresh_processes(4) as pool:
        start = time.time() + 2.5
        runs = [pool.submit(_take, at.name, start) for _ in range(4)]
        assert sorted(run.result() for run in runs) == [False, False, False, True]


def _claim_and_die(url: str) -> None:
    _claim(files.place(url))
    os._exit(9)


def test_the_claim_of_a_process_that_died_here_is_taken_at_once(at):
    with fresh_processes(1) as pool, pytest.raises(BrokenProcessPool):
        pool.submit(_claim_and_die, at.name).result()
    assert at.size("x/claim")
    if not Path("/proc/sys/kernel/random/boot_id").exists():
        pytest.skip("this system does not tell whether a process is its own")
    with _claim(at):
        pass


def test_a_claim_of_another_machine_is_not_judged_by_its_process_number(at):
    with _claim(at) as claim:
        found = json.loads(at.fetch("x/claim", 9999).data)
        claim.close()
    at.write("x/claim", json.dumps({**found, "pid": 999999, "host": "elsewhere"}).encode())
    with pytest.raises(DestinationHeldError, match="on elsewhere, process 999999"):
        _claim(at)
    at.write("x/claim", b"not a claim")
    with pytest.raises(DestinationHeldError, match="another process"):
        _claim(at)
    at.write("x/claim", bytes(1 << 20))
    with pytest.raises(StoreError, match="x/claim: is not a claim"):
        _claim(at)


def test_a_service_that_ignores_conditions_is_refused(bucket, monkeypatch):
    with careless_server() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StoreError, match="does not keep conditional puts"):
            _claim(files.place("s3://careless/x"))


# Journals


def _journal(place):
    from inrstore.files.remote_journal import RemoteJournal

    return RemoteJournal(place, "x/journal")


def _records(place):
    from inrstore.files.remote_journal import remote_records

    return list(remote_records(place, "x/journal"))


def test_a_journal_keeps_every_record_in_order_over_many_openings(at, monkeypatch):
    monkeypatch.setattr("inrstore.files.remote_journal.PAGE_BYTES", 300)
    assert _records(at) == []
    wanted = []
    for opening in range(4):
        with _journal(at) as journal:
            for number in range(7):
                wanted.append({"event": "outcome", "opening": opening, "number": number, "text": "é" * 20})
                journal.append(wanted[-1])
                assert _records(at) == wanted
    assert len(list(at.walk("x/journal"))) > 3


def test_damage_in_a_journal_is_said(at, monkeypatch):
    monkeypatch.setattr("inrstore.files.remote_journal.PAGE_BYTES", 300)
    with _journal(at) as journal:
        for number in range(40):
            journal.append({"number": number})
    whole = files.read(at, "x/journal/00000001", 1 << 20)
    for bad in (whole[:-1], whole.replace(b"number", b"numbeR", 1), whole.replace(b"\n", b"\nx\n", 1)):
        at.write("x/journal/00000001", bad)
        for action in (_records, _journal):
            with pytest.raises(StoreError, match=r"journal/00000001: line \d+ is damaged"):
                action(at)
    at.remove("x/journal/00000001")
    with pytest.raises(StoreError, match="journal/00000001: is missing"):
        _records(at)


@pytest.mark.parametrize("records", [0, 1, 9])
def test_a_process_that_lost_its_claim_cannot_add_to_the_journal(at, monkeypatch, records):
    monkeypatch.setattr("inrstore.files.remote_journal.PAGE_BYTES", 300)
    old = _journal(at)
    for number in range(records):
        old.append({"number": number})
    with _journal(at) as new:
        if not records:
            new.append({"number": 0})
        for _ in range(2):
            with pytest.raises(DestinationHeldError, match="another process writes to this journal"):
                old.append({"from": "the old one"})
        new.append({"from": "the new one"})
    assert [record.get("from") for record in _records(at)] == [None] * max(records, 1) + ["the new one"]
