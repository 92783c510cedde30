"""A pytest plugin that puts this codec where zarr's default one stands, and writes down how tests ended.

Set by the environment: INRSTORE_INJECT is "none", "default" (where no codec was asked for) or "explicit" (for every
BytesCodec besides, inside shards too); INRSTORE_OUTCOMES names the file of outcomes. `tools/peers_suites.py` uses it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

_outcomes: dict[str, list[str]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Patch zarr before its tests are imported."""
    how = os.environ.get("INRSTORE_INJECT", "none")
    if how == "none":
        return
    from zarr.core import array

    array.default_serializer_v3 = _ours_if_held(array.default_serializer_v3, _three)
    array.default_compressor_v2 = _ours_if_held(array.default_compressor_v2, _two)
    if how == "explicit":
        _replace_bytes()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what is not a plain pass of a phase."""
    if report.when == "call" or report.outcome != "passed":
        error = str(getattr(report.longrepr, "reprcrash", None) and report.longrepr.reprcrash.message)[:300]
        _outcomes[report.nodeid] = [report.outcome, error if report.failed else ""]


def pytest_sessionfinish() -> None:
    """Write the outcomes."""
    if "INRSTORE_OUTCOMES" in os.environ:
        Path(os.environ["INRSTORE_OUTCOMES"]).write_text(json.dumps(_outcomes))


def _three() -> Any:
    from inrstore.codecs import InrCodec

    return InrCodec(lossless=True)


def _two() -> Any:
    from inrstore.codecs import InrNumcodec

    return InrNumcodec(lossless=True)


def _held(kind: Any) -> bool:
    """Return whether the format holds a data type of zarr."""
    from inrstore.chunk import dtypes
    from inrstore.errors import ConfigurationError

    try:
        dtypes.code_of(kind.to_native_dtype())
    except (ConfigurationError, TypeError, AttributeError):
        return False
    return True


def _ours_if_held(original: Callable[[Any], Any], ours: Callable[[], Any]) -> Callable[[Any], Any]:
    def chosen(kind: Any) -> Any:
        return ours() if _held(kind) else original(kind)

    return chosen


def _replace_bytes() -> None:
    from zarr.codecs import BytesCodec, ShardingCodec
    from zarr.core.metadata import v3

    def ours(codec: Any) -> Any:
        if isinstance(codec, ShardingCodec):
            return replace(codec, codecs=tuple(ours(inner) for inner in codec.codecs))
        return _three() if isinstance(codec, BytesCodec) else codec

    original = v3.ArrayV3Metadata.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        if _held(named.get("data_type")):
            named["codecs"] = tuple(ours(codec) for codec in v3.parse_codecs(named["codecs"]))
        original(self, *arguments, **named)

    v3.ArrayV3Metadata.__init__ = init
