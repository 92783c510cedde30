"""Connections of a server: so many at a time, and none for longer than it is of use."""

from __future__ import annotations

import asyncio
from typing import Any


class Connections:
    """All connections that are open.

    Parameters
    ----------
    loop : AbstractEventLoop
    most : int
        How many there can be.
    patience : float
        Seconds for a request to be complete, from the start of a connection or the end of the answer before.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, patience: float) -> None:
        self.loop, self.most, self.patience = loop, most, patience
        self.open: dict[Any, Connection] = {}

    def busy(self, transport: Any) -> None:
        """Take note that the request of a connection is complete."""
        if transport in self.open:
            self.open[transport].rest()

    def idle(self, transport: Any) -> None:
        """Take note that it was answered."""
        if transport in self.open:
            self.open[transport].watch()


class Connection(asyncio.Protocol):
    """A connection that passes all on to the protocol of aiohttp, and is cut if no request comes in time.

    Parameters
    ----------
    inner : Protocol
    all_ : Connections

    Attributes
    ----------
    idle : bool
        Whether no request is being answered.
    """

    def __init__(self, inner: Any, all_: Connections) -> None:
        self._inner, self._all = inner, all_
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self.idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or say that there are too many."""
        self._transport = transport
        if len(self._all.open) >= self._all.most:
            text = b"too many connections\n"
            self._inner = None
            self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
                                  b"Content-Length: %d\r\n\r\n%s" % (len(text), text))  # fmt: skip
            self._transport.close()
            return
        self._all.open[transport] = self
        self.watch()
        self._inner.connection_made(transport)

    def watch(self) -> None:
        """Wait for a request, and no longer than the patience lasts."""
        self.rest()
        self.idle = True
        self._timer = self._all.loop.call_later(self._all.patience, self._transport.abort)

    def rest(self) -> None:
        """Wait no more: there is a request, or the connection is gone."""
        self.idle = False
        if self._timer is not None:
            self._timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.rest()
        self._all.open.pop(self._transport, None)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on that nothing more comes."""
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the client takes nothing at present."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it does again."""
        if self._inner is not None:
            self._inner.resume_writing()
