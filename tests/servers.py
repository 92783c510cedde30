"""Real servers for the tests of object stores, each a process or a thread of its own on a free port of this machine."""

from __future__ import annotations

import http.server
import itertools
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_moto = pytest.mark.skipif(
    find_spec("moto") is None or find_spec("obstore") is None or find_spec("flask") is None,
    reason="the tests of object stores need obstore and moto[server]",
)
_numbers = itertools.count()


class S3Server:
    """A moto server, and the log in which it notes each request."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self._log = address, log
        self._read = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret-of-somebody",
            "AWS_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }

    def bucket(self) -> str:
        """Make a bucket and return its URL."""
        name = f"bucket-{next(_numbers)}"
        self.put(name)
        return f"s3://{name}"

    def put(self, path: str, data: bytes = b"", **headers: str) -> None:
        """Send a request that is not obstore's: a bucket, an object for a folder, one for everybody."""
        headers.setdefault("Content-Type", "application/octet-stream")
        request = urllib.request.Request(f"{self.address}/{path}", data, method="PUT", headers=headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
            pass

    def requests(self) -> list[tuple[str, str]]:
        """Return method and path of every request since the last call."""
        text = self._log.read_text(errors="replace")
        new, self._read = text[self._read :], len(text)
        return re.findall(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+) (\S+) HTTP', new)


def fresh_processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of new processes with the environment of this one, which start fast."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["inrstore.store.convert", "inrstore.files.claim", "obstore.store"])
    # The fork server is one for all tests and has the environment of the first.
    return ProcessPoolExecutor(count, context, initializer=_take_environment, initargs=(dict(os.environ),))


def _take_environment(values: dict[str, str]) -> None:
    os.environ.update(values)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a moto server while the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "moto.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            _wait(process, port, log)
            yield S3Server(f"http://127.0.0.1:{port}", log)
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Careless(_Quiet):
    """An object store that takes every put, whatever its condition, as some services do."""

    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_GET(self) -> None:
        found = self.objects.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", self.date_time_string())
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder with the server of the standard library, which knows no ranges."""
    with _serving(partial(_Quiet, directory=str(folder))) as address:
        yield address


@contextmanager
def careless_server() -> Iterator[str]:
    """Run an object store that ignores conditions."""
    with _serving(type("Careless", (_Careless,), {"objects": {}})) as address:
        yield address


@contextmanager
def _serving(handler: object) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
