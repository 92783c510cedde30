"""Who may write to a destination in an object store: an object, made by a conditional put, that its holder keeps fresh.

A claim that nobody refreshed for some minutes is that of a dead process and may be taken over, by exchanging exactly
that version of it; of several that try, one wins. Ages are told by the clock of the server alone. A holder that was
stopped for so long that it lost its claim learns of it before it writes again.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from inrstore.errors import DestinationHeldError, FileTooLargeError, StoreError
from inrstore.files.closing import Closing
from inrstore.files.lock import describe, holder
from inrstore.files.remote import Found, ObjectPlace, Version

EXPIRY = 300.0
"""Seconds without a sign of life after which a claim may be taken over."""

INTERVAL = 30.0
"""Seconds between two signs of life."""

_MAX_BYTES = 4096
_proven: set[str] = set()
"""Buckets that were seen to keep conditions, by this process."""


class Claim(Closing):
    """The right to write, held by one process at a time.

    Parameters
    ----------
    place : ObjectPlace
    key : str
        Of the claim.
    what : str
        What it guards, for messages; the place, if it is not given.
    expiry : float
        Seconds after which one that is not refreshed may be taken over.
    interval : float
        Seconds between refreshings; much less than `expiry`.

    Raises
    ------
    DestinationHeldError
        If another process holds it; the message says who, and when it was last heard of.
    StoreError
        If the service does not keep the conditions of a put.
    OSError
        If the service cannot be reached.
    """

    def __init__(
        self, place: ObjectPlace, key: str, what: str = "", *, expiry: float = EXPIRY, interval: float = INTERVAL
    ) -> None:
        self._place, self._key, self.what = place, key, what or place.name
        self._expiry = expiry
        self._token, self._count = secrets.token_hex(8), 0
        self._over = ""  # why this process does not hold it any more
        self._one_at_a_time = threading.Lock()
        self._seen = _clock()
        self._version = self._take()
        self._stop = threading.Event()
        # It must not keep a process alive that has failed; such a process leaves its claim to grow old.
        threading.Thread(target=self._refresh, args=(interval,), name="inrstore claim", daemon=True).start()

    def _take(self) -> Version:
        there: Found | None = None
        self.fresh = True  # there was no claim before
        for _ in range(5):
            version = self._swap(self._record(), None if there is None else there.version)
            if version is not None:
                return version if there is not None else self._prove(version)
            there = self._fetch()
            self.fresh = there is None
            if there is not None and not self._is_free(there):
                raise DestinationHeldError(f"{self.what}: being written by {self._who(there)}")
        raise DestinationHeldError(f"{self.what}: being written by another process, which was faster")

    def _swap(self, data: bytes, old: Version | None) -> Version | None:
        """Exchange the claim as `ObjectPlace.swap` does; what the server wrote though it said it failed is written."""
        try:
            return self._place.swap(self._key, data, old)
        except OSError:
            with suppress(OSError, StoreError):
                there = self._fetch()
                if there is not None and there.data == data:
                    return there.version
            raise

    def _prove(self, version: Version) -> Version:
        """Refuse a service that takes a put whatever its condition: with it, everyone would win."""
        bucket = "/".join(self._place.name.split("/")[:3])
        if bucket in _proven:
            return version
        other = {name: '"0"' if name == "e_tag" else "1" for name in version}
        data = json.dumps({"token": secrets.token_hex(8), "released": True}).encode()
        if self._place.create(self._key, [data]) or self._place.swap(self._key, data, other) is not None:
            raise StoreError(f"{bucket}: this service does not keep conditional puts, so nothing can be claimed there")
        _proven.add(bucket)
        return version

    def _record(self, released: bool = False) -> bytes:
        """Return the claim as text that no one else writes, and this process only once."""
        self._count += 1
        own = {"machine": _machine(), "token": self._token, "count": self._count, "released": released}
        return json.dumps({**holder(), **own}).encode()

    def _fetch(self) -> Found | None:
        with suppress(FileTooLargeError):
            return self._place.fetch(self._key, _MAX_BYTES)
        raise StoreError(f"{self._place.label(self._key)}: is not a claim")

    def _is_free(self, there: Found) -> bool:
        who = _parse(there.data)
        return who.get("released") is True or _is_dead(who) or self._age(there) > self._expiry

    def _age(self, there: Found) -> float:
        """Return the seconds since a claim was refreshed. The server's time is that of an object written now."""
        key = f"{self._key}.time-{secrets.token_hex(4)}"
        self._place.write(key, b"now")
        try:
            now = self._place.fetch(key, _MAX_BYTES)
        finally:
            self._place.remove(key)
        return (now.modified - there.modified).total_seconds() if now else 0.0

    def _who(self, there: Found) -> str:
        who = _parse(there.data)
        text = describe(who) if who else "another process"
        return f"{text}; last heard of at {there.modified:%H:%M:%S} UTC, free {self._expiry:.0f} s after its last sign"

    def check(self) -> None:
        """Make sure that it is still held; costs nothing while it is fresh.

        Raises
        ------
        DestinationHeldError
            If another process has taken it over.
        OSError
            If it is old and cannot be refreshed.
        """
        if self._over or _clock() - self._seen > self._expiry / 2:
            self.renew()

    def renew(self) -> None:
        """Refresh it now, which proves that it is held; errors as in `check`."""
        with self._one_at_a_time:
            self._renew(False)

    def _renew(self, released: bool) -> None:
        if self._over:
            raise DestinationHeldError(self._over)
        now = _clock()
        version = self._swap(self._record(released), self._version)
        if version is None:
            there = self._fetch()
            if there is not None and _parse(there.data).get("token") == self._token:
                # An earlier sign of life was written, though all that was heard of it was an error.
                version = self._swap(self._record(released), there.version)
        if version is None:
            there = self._fetch()
            by = self._who(there) if there else "somebody who removed the claim"
            self._over = f"{self.what}: taken over by {by}"
            raise DestinationHeldError(self._over)
        self._version, self._seen = version, now

    @property
    def held(self) -> bool:
        """Whether this process holds it, as far as it knows."""
        return not self._over

    def _refresh(self, interval: float) -> None:
        while not self._stop.wait(interval):
            try:
                self.renew()
            except DestinationHeldError:
                return
            except OSError:
                continue  # it may be reached again before the claim is too old; `check` will tell

    def close(self) -> None:
        """Let others write. Never fails: a claim that cannot be released grows old."""
        self._end(remove=False)

    def remove(self) -> None:
        """Release it and leave no object behind; for what will not be claimed again."""
        self._end(remove=True)

    def _end(self, remove: bool) -> None:
        self._stop.set()
        with self._one_at_a_time, suppress(OSError, StoreError):
            # Fresh from here, so nobody takes it over before it is removed.
            self._renew(released=not remove)
            if remove:
                self._place.remove(self._key)
        self._over = self._over or f"{self.what}: released"


def _clock() -> float:
    """Return seconds that also pass while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _parse(data: bytes) -> dict[str, Any]:
    try:
        who = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return who if isinstance(who, dict) else {}


def _machine() -> str:
    """Return the system in which the number of a process means something, or "" if that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + "/" + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_dead(who: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this system that has ended."""
    own, pid = holder(), who.get("pid")
    if not who.get("machine") or (who["machine"], who.get("host")) != (_machine(), own["host"]):
        return False
    if type(pid) is not int or not 0 < pid < 1 << 31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
