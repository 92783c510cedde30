"""A store or an archive over HTTP: its files, decoded Zarr, its own bytes, and a page, to be read only.

What an address names is found by `inrstore.views.served`; here is the protocol (RFC 9110): methods, ranges, tags, and
limits for clients that are many, slow or hostile. Work that reads or decodes runs in a few threads; a connection holds
one piece of an answer at a time.

An answer that cannot be completed is broken off, so that no client takes it for whole.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from inrstore.codecs import decoded
from inrstore.errors import ConfigurationError, InrstoreError, MissingDependencyError
from inrstore.files.closing import Closing
from inrstore.files.names import check_name
from inrstore.store.manifest import digest
from inrstore.views.compared import Compared
from inrstore.views.connections import Connection, Connections
from inrstore.views.content import Bytes, cache_bytes
from inrstore.views.http_request import Part, Problem, part_of, path_of
from inrstore.views.listed import MOST, Listed
from inrstore.views.served import JSON, TEXT, Resource, Served

PORT = 8008
MOST_CONNECTIONS = 256
_PIECE = 1 << 20
"""Bytes that are read and sent at once."""
_SLICE = 1 << 18
"""Bytes that a client has to take at a time."""
_MOST_HELD = 1 << 22
"""Bytes that an answer may hold without waiting for others that hold more."""
_HOLDERS = 8
_PATIENCE = 30.0
"""Seconds for a client to say what it wants, and to take a slice of an answer."""
_GOODBYE = 1.0
"""Seconds that answers have to end in when the server stops."""
_TICK = 0.5
_BACKLOG = 128
_MOST_TOLD = 1000
_MOST_ENTITIES = 1 << 16
_WEB = Path(__file__).parent / "web"
_SCRIPT = "text/javascript; charset=utf-8"
_STATIC = {
    ".js": _SCRIPT, ".mjs": _SCRIPT, ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8", ".json": JSON, ".map": JSON, ".svg": "image/svg+xml", ".png": "image/png",
    ".wasm": "application/wasm", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
_HTML = _STATIC[".html"]
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page loads nothing from anywhere else, and nothing else shows it in a frame."""
_DATA_POLICY = "default-src 'none'; sandbox"
"""What an archive holds is data: an HTML file of somebody's is not run in the page's name."""
_ALWAYS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-cache"))
_METHODS = "GET, HEAD, OPTIONS"
_SHOWN = "Accept-Ranges, Content-Length, Content-Range, ETag"
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", _METHODS),
    ("Access-Control-Allow-Headers", "Range, If-Range, If-Match, If-None-Match"),
    ("Access-Control-Max-Age", "86400"),
    ("Allow", _METHODS),
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Answer:
    """What is sent for a request.

    Parameters
    ----------
    resource : Resource
    part : Part
    silent : bool
        Whether no byte of it is sent.
    first : bytearray or None
        Its first piece, if it was read already.
    """

    resource: Resource
    part: Part
    silent: bool
    first: bytearray | None = None

    def piece(self, at: int) -> bytearray:
        """Read the piece that begins so many bytes behind the start of the part."""
        piece = bytearray(min(_PIECE, self.part.length - at))
        if piece:
            self.resource.content.read_into(self.part.start + at, memoryview(piece))
        return piece


class Server(Closing):
    """A server of a store or an archive, in threads of its own, until it is closed.

    Parameters
    ----------
    where : path-like or str, or sequence of str
        Path or URL; of several, stores of one image to be compared.
    host : str
        Address to listen at. All that is served can be read by whoever reaches it.
    port : int
        0 for any that is free.
    source : path-like or str, optional
        What it was made from, to compare with: the file of a store; the tree or zip of an archive.
    origin : str
        Origin of web pages that may read what is served ("https://viewer.example"), "*" for all, "" for the server's
        own page alone.
    scratch : str, optional
        Folder for voxels that exceed the cache, and for what is unpacked; that of the system for temporary files.
    log, tell : callable, optional
        Called with a line for each request; with a line for each thing that went wrong, once.

    Attributes
    ----------
    url : str
        "http://127.0.0.1:8008/"

    Raises
    ------
    StoreError
        If it is neither, is incomplete or damaged.
    ConfigurationError
        If there is no such source, or the port or address cannot be used.
    MissingDependencyError
        Without aiohttp.

    Examples
    --------
    >>> with inrstore.views.serve.Server("archive", port=0) as server:    # doctest: +SKIP
    ...     nibabel.load(fsspec.open(server.url + "nii/sub-01/anat/sub-01_T1w.nii"))
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | Sequence[str],
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        source: str | os.PathLike[str] | None = None,
        origin: str = "*",
        scratch: str | None = None,
        log: Callable[[str], None] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._web = _aiohttp()
        if origin not in ("", "*") and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin):
            raise ConfigurationError(f"{origin!r}: is no origin of web pages, as https://viewer.example")
        self._origin, self._log, self._tell = origin, log, tell
        self._told = set[str]()
        self._socket = _listen(host, port)
        found = self._socket.getsockname()
        self._names = _names(host) if is_loopback(host) else None
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{found[1]}/"
        self._pool = ThreadPoolExecutor(min(32, 2 + (os.cpu_count() or 1)), thread_name_prefix="inrstore serve")
        self._most, self._patience = MOST_CONNECTIONS, _PATIENCE
        self._working = 0
        try:
            aside = tempfile.gettempdir() if scratch is None else scratch
            if not os.path.isdir(aside):
                raise ConfigurationError(f"{aside}: is no folder")
            self._served = _served(where, source, aside)
        except BaseException:
            self._socket.close()
            raise
        self._hidden = _folders(*([where] if isinstance(where, str | os.PathLike) else where), source)
        self._listed = self._pool.submit(_listed, self._served)  # the record of a large archive takes a while
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="inrstore serve", daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Stop within two seconds: answers have one to end in."""
        if not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # it ended meanwhile
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._let_go()

    def _let_go(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._listed.done() and not self._listed.cancelled() and self._listed.exception() is None:
            self._listed.result().close()
        self._served.close()

    @property
    def working(self) -> bool:
        """Whether a thread is still at work; a chunk that is being decoded cannot be broken off."""
        return self._working > 0

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                raise
        finally:
            self._socket.close()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._holders = asyncio.Semaphore(_HOLDERS)
        self._connections = Connections(self._loop, self._most, self._patience)
        quiet = logging.getLogger("inrstore.serve")  # what clients send wrongly is answered, and nothing else
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        http = self._web.Server(
            self._handle, access_log=None, logger=quiet, lingering_time=0.0, keepalive_timeout=self._patience
        )
        listening = await self._loop.create_server(
            lambda: Connection(http(), self._connections), sock=self._socket, backlog=_BACKLOG
        )
        self._started.set_result(None)
        await self._stop.wait()
        listening.close()
        for transport, connection in list(self._connections.open.items()):
            if connection.idle:
                transport.abort()
        await asyncio.sleep(0)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(http.shutdown(_GOODBYE / 2), _GOODBYE)
        for transport in list(self._connections.open):
            transport.abort()
        await asyncio.sleep(0)

    # ---- requests

    async def _handle(self, request: Any) -> Any:
        began, transport = time.perf_counter(), request.transport
        self._connections.busy(transport)
        sent = [0, 0]
        try:
            return await self._respond(request, sent)
        finally:
            self._connections.idle(transport)
            if self._log is not None:
                took = 1000 * (time.perf_counter() - began)
                ranged = request.headers.get("Range", "-")
                self._log(f"{request.method} {request.raw_path} {ranged} {sent[0]} {sent[1]} bytes {took:.1f} ms")

    async def _respond(self, request: Any, sent: list[int]) -> Any:
        answer: _Answer | None = None
        try:
            answer = await self._answer(request)
            if answer.resource.held <= _MOST_HELD:
                return await self._send(request, answer, sent)
            async with self._holders:
                return await self._send(request, answer, sent)
        except Problem as problem:
            headers = (*self._headers(data=True), *problem.headers.items(), ("X-Content-Type-Options", "nosniff"))
            said = Resource(Bytes(f"{problem.reason}\n".encode()), "", TEXT)
            part = Part(problem.status, 0, said.content.size, headers)
            return await self._send(request, _Answer(said, part, request.method == "HEAD"), sent)
        finally:
            if answer is not None:
                answer.resource.close()

    async def _answer(self, request: Any) -> _Answer:
        """Return what a request is answered with.

        Raises
        ------
        Problem
        """
        self._check_host(request.headers.get("Host"))
        path, query = path_of(request.raw_path)
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            raise Problem(405, f"{request.method}: only GET, HEAD and OPTIONS", Allow=_METHODS)
        if request.method == "OPTIONS":
            headers = (*self._headers(data=True), *_PREFLIGHT)
            return _Answer(Resource(Bytes(b""), ""), Part(204, 0, 0, headers), True)
        return await self._in_thread(self._found, request, path, query)

    def _found(self, request: Any, path: str, query: dict[str, list[str]]) -> _Answer:
        """Return what a path names, and its first piece, so that a small one takes one turn of a thread."""
        kind, _, rest = path[1:].partition("/")
        data = kind not in ("", "web")
        if data:
            resource = self._resource(path, query)
        else:
            resource = self._static("page/index.html" if not kind and not rest else rest)
        try:
            part = part_of(request.method, request.headers, resource.content.size, resource.tag)
            silent = request.method == "HEAD" or part.status == 304
            headers = (*self._headers(data=data), *part.headers, *_ALWAYS)
            answer = _Answer(resource, replace(part, headers=headers), silent)
            return answer if silent or resource.held > _MOST_HELD else replace(answer, first=answer.piece(0))
        except BaseException:
            resource.close()
            raise

    def _headers(self, *, data: bool) -> list[tuple[str, str]]:
        """Return what the pages of others, and this one, may do with an answer."""
        found = [("Content-Security-Policy", _DATA_POLICY if data else _PAGE_POLICY)]
        if not data or not self._origin:
            return [*found, ("Cross-Origin-Resource-Policy", "same-origin")]
        return [*found, ("Access-Control-Allow-Origin", self._origin), ("Access-Control-Expose-Headers", _SHOWN)]

    def _check_host(self, host: str | None) -> None:
        """Refuse a request by another name of this machine.

        A web page whose name is made to mean 127.0.0.1 (DNS rebinding) would be of the same origin as this server, and
        could read all of it; its requests have that name.
        """
        if self._names is None:
            return
        name = re.sub(r":[0-9]*$", "", host or "").lower()
        if name not in self._names:
            raise Problem(421, "this server answers to localhost only")

    # ---- what runs in threads

    async def _in_thread(self, work: Callable[..., _T], *values: Any) -> _T:
        def run() -> _T:
            try:
                return work(*values)
            finally:
                self._working -= 1

        self._working += 1
        try:
            return await self._loop.run_in_executor(self._pool, run)
        except Problem:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Problem(404, "there is no such file") from error
        except ValueError as error:
            raise Problem(400, str(error)) from error
        except (InrstoreError, OSError, MemoryError) as error:
            raise self._failed(error) from error
        except Exception as error:
            self._say(f"an error of this program, please report it: {type(error).__name__}: {error}")
            raise Problem(500, "an error of the server") from error

    def _failed(self, error: BaseException) -> Problem:
        """Return the answer to a request that what is served does not allow, without where it lies."""
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = " ".join((text or type(error).__name__).split())
        self._say(text)
        for folder in self._hidden:
            text = text.replace(folder, "")
        return Problem(500, text[:1000])

    def _say(self, text: str) -> None:
        if self._tell is not None and text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            self._tell(text)

    def _static(self, name: str) -> Resource:
        """Return a file of the page."""
        media = _STATIC.get(os.path.splitext(name)[1].lower())
        if media is not None and not check_name(name):
            for folder in (_WEB, _WEB / "dist"):
                file = folder.joinpath(*name.split("/"))
                if file.is_file() and file.resolve().is_relative_to(_WEB.resolve()):
                    data = file.read_bytes()
                    return _made(data, media)
        if name == "page/index.html":
            return _made(self._plain_page(), _HTML)
        raise FileNotFoundError(name)

    def _resource(self, path: str, query: dict[str, list[str]]) -> Resource:
        if path == "/index.json":
            offset, limit = (_count(query, name, default) for name, default in (("offset", 0), ("limit", MOST)))
            if limit > MOST:
                raise Problem(400, f"limit: at most {MOST}")
            return _json(self._listed.result().page(offset, limit, query.get("filter", [""])[-1]))
        if path == "/image.json":
            if len(query.get("path", ())) != 1:
                raise Problem(400, "path: say which image, as ?path=sub-01/anat/sub-01_T1w.nii")
            return _json(self._listed.result().image(query["path"][0]))
        if path == "/nii" or (path.startswith("/nii/") and path.endswith("/")):
            return self._listing(path[5:].rstrip("/"))
        try:
            return self._served.open(path[1:])
        except IsADirectoryError:
            return self._listing(path[5:])

    def _listing(self, folder: str) -> Resource:
        """Return the names in a folder as links."""
        found = self._served.entries(folder)
        if len(found) > _MOST_ENTITIES:
            raise Problem(500, f"{len(found)} names are too many for one page; see /index.json")
        lines = [(f"/nii/{quote(entry.path)}{'/' * entry.is_folder}", entry.name + "/" * entry.is_folder)
                 for entry in found]  # fmt: skip
        if folder:
            above = folder.rpartition("/")[0]
            lines.insert(0, (f"/nii/{quote(above)}/" if above else "/nii/", "../"))
        return _made(_links(f"/nii/{folder}", lines), _HTML)

    def _plain_page(self) -> bytes:
        page = self._listed.result().page(0, MOST)
        lines = [(f"/nii/{quote(image['path'])}", image["path"]) for image in page["images"]]
        title = f"{page['name']}: {page['total']} images, {page['files']} files"
        return _links(title, [("/nii/", "all files"), ("/index.json", "images as JSON"), *lines])

    # ---- sending

    async def _send(self, request: Any, answer: _Answer, sent: list[int]) -> Any:
        part, at = answer.part, 0
        piece = answer.first
        if piece is None and not answer.silent:
            piece = await self._in_thread(answer.piece, 0)  # before anything is said
        response = self._web.StreamResponse(status=part.status)
        response.headers.extend(part.headers)
        if part.status not in (204, 304):
            response.headers["Content-Type"] = answer.resource.media
            response.content_length = part.length
        if request.body_exists:  # of which nothing is read
            response.force_close()
        sent[0] = part.status
        try:
            async with asyncio.timeout(self._patience):
                await response.prepare(request)
            while piece:
                for start in range(0, len(piece), _SLICE):
                    async with asyncio.timeout(self._patience):
                        await response.write(memoryview(piece)[start : start + _SLICE])
                at += len(piece)
                sent[1] = at
                piece = await self._in_thread(answer.piece, at) if at < part.length else None
            async with asyncio.timeout(self._patience):
                await response.write_eof()
        except (Problem, TimeoutError, ConnectionError, asyncio.CancelledError):
            if request.transport is not None:
                request.transport.abort()
        return response


def _made(data: bytes, media: str) -> Resource:
    return Resource(Bytes(data), digest(data), media)


def _json(value: Any) -> Resource:
    return _made(json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), JSON)


def _count(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[-1]
    if not re.fullmatch("[0-9]{1,12}", text, re.ASCII):
        raise Problem(400, f"{name}: not a number from 0 on")
    return int(text)


def _links(title: str, lines: list[tuple[str, str]]) -> bytes:
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><h1>{escape(title)}</h1>"
    items = "".join(f'<li><a href="{escape(link)}">{escape(text)}</a>\n' for link, text in lines)
    return f"{head}\n<ul>\n{items}</ul>\n".encode(errors="surrogateescape")


def _served(
    where: str | os.PathLike[str] | Sequence[str], source: str | os.PathLike[str] | None, scratch: str
) -> Served | Compared:
    if isinstance(where, str | os.PathLike):
        return Served(where, source, scratch)
    return Compared(where, source, scratch)


def _listed(served: Served | Compared) -> Listed | Compared:
    return served if isinstance(served, Compared) else Listed(served)


def serve(
    where: str | os.PathLike[str] | Sequence[str],
    *,
    ready: Callable[[str], None],
    cache: int | None = None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM; in the main thread.

    Parameters
    ----------
    where : path-like or str, or sequence of str
        As of `Server`.
    ready : callable
        Called with the address as soon as it answers.
    cache : int, optional
        Bytes of decoded chunks to keep; by default a quarter of the memory, at most 1 GiB.
    **options
        As of `Server`, which says what is raised.
    """
    stop = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    before = decoded.cache(cache_bytes() if cache is None else cache)
    try:
        with Server(where, **options) as server:
            ready(server.url)
            while not stop.wait(_TICK):  # a wait without end takes no signal on every system
                pass
    finally:
        decoded.cache(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if server.working:  # the interpreter would wait for a chunk that is being decoded, and for nobody
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


# ---- what it needs


def is_loopback(host: str) -> bool:
    """Return whether an address is that of this machine, which no other can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _folders(*paths: str | os.PathLike[str] | None) -> list[str]:
    """Return the folders and prefixes that hold what is served, which are nobody's business, longest first."""
    found = [os.fspath(path).rstrip("/").rpartition("/")[0] for path in paths if path is not None]
    found += [os.path.abspath(folder) for folder in found if folder and "://" not in folder]
    return sorted((f"{folder}/" for folder in found if folder), key=len, reverse=True)


def _names(host: str) -> frozenset[str]:
    return frozenset({"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host.lower()})


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at one address."""
    if not 0 <= port < 1 << 16:
        raise ConfigurationError(f"port: {port} is none")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
        try:
            if os.name == "posix":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(_BACKLOG)
        except BaseException:
            made.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{host}:{port}: cannot be listened at: {why}") from error
    return made


def _aiohttp() -> Any:
    try:
        from aiohttp import web
    except ImportError as error:
        raise MissingDependencyError('serving needs aiohttp: pip install "inrstore[serve]"') from error
    return web
