"""Lossy settings that an array hands on to its copy: what was decoded with them would lose quality a second time.

zarr and xarray take the codec of an array along when they copy it, and tell the codec nothing. What it can see is
that it came from stored metadata, that it decoded, and that it encodes now.
"""

from __future__ import annotations

import threading
import uuid
import warnings
from weakref import WeakValueDictionary

from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError

_known: WeakValueDictionary[str, Opened] = WeakValueDictionary()
_guard = threading.Lock()


class Opened:
    """What a codec that came from stored metadata has done so far; its copies share it, in other processes a part."""

    def __init__(self, name: str, saved: bool) -> None:
        self._name = name
        self.saved = saved
        self.decoded = self._warned = False

    def __reduce__(self) -> tuple[object, tuple[str, bool]]:
        return find, (self._name, self.saved)

    def check(self, target: Target) -> None:
        """Warn, once, if lossy chunks are encoded after some were decoded.

        Raises
        ------
        ConfigurationError
            If there is a scale for each index of an axis, and the array may be another one, where the same index may
            stand for something else.
        """
        if target.lossless:
            return
        said = ", ".join(f"{name}={value!r}" for name, value in target.to_dict().items() if name != "scale")
        if len(set(target.scale or ())) > 1 and (self.decoded or self.saved):
            raise ConfigurationError(
                f"the settings {said} of a stored array have a scale for each index, which may be those of other "
                "indices here: give the array that is written a codec of its own, or drop it from the encoding"
            )
        if self.decoded and not self._warned:
            self._warned = True
            warnings.warn(
                f"chunks are encoded with the lossy settings of a stored array ({said}) that was decoded before: what "
                "was decoded loses quality a second time. Give the array that is written a codec of its own, such as "
                "lossless=True, or drop it from the encoding",
                UserWarning,
                stacklevel=3,
            )


def opened() -> Opened:
    """Return the record of a codec that was read just now."""
    return find(uuid.uuid4().hex, False)


def find(name: str, saved: bool) -> Opened:
    """Return the record of a codec, which another process may have begun."""
    with _guard:
        record = _known.get(name)
        if record is None:
            record = _known[name] = Opened(name, saved)
        record.saved |= saved
        return record
