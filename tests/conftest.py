"""Fixtures of the archive tests; what they need is imported inside, because readers' tests run without nibabel."""

from __future__ import annotations

import os

import pytest

# The reference decodes unless a test, or who runs them, says otherwise: loops that are being compiled take time and
# memory of tests that measure these.
_NOBODY_SAYS = "INRSTORE_COMPILED" not in os.environ
os.environ.setdefault("INRSTORE_COMPILED", "0")

try:
    from hypothesis import settings
except ModuleNotFoundError:  # its tests are skipped
    pass
else:
    settings.register_profile("any machine", deadline=None)  # one that has other work takes longer, and is right
    settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def as_installed(request, monkeypatch):
    """Real scans are converted and read as users do it: by compiled loops where these serve."""
    if _NOBODY_SAYS and request.node.get_closest_marker("real"):
        monkeypatch.delenv("INRSTORE_COMPILED")


@pytest.fixture
def small(monkeypatch):
    """Chunks of about 40 voxels, so that small images have several."""
    from inrstore.store import layout

    monkeypatch.setattr(layout, "CHUNK_VOXELS", 40)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 40)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 40)


@pytest.fixture
def source(tmp_path):
    """A small 4-D image in a folder of its own."""
    from common import random_image, write_nifti

    (tmp_path / "in").mkdir()
    return write_nifti(tmp_path / "in/a.nii.gz", random_image((5, 4, 6, 3)))
