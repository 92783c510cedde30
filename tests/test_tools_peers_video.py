"""Video codecs as peers: they land on the target, their bytes decode, and what is not installed is said."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec

import numpy as np
import pytest

from tools import bench_rate, peers_video
from tools.bench_rate_data import Volume
from tools.bench_rate_peers import Outcome, Way

needs_av = pytest.mark.skipif(find_spec("av") is None, reason="the encoders come with PyAV")


def body(measurements: int = 0) -> Volume:
    """Return a small image, 3-D or 4-D, that is not as large as the encoders want it."""
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (7, 33, 24)), indexing="ij")
    shape = np.exp(-2 * (x**2 + y**2 + 0.3 * z**2))
    images = [1000 * shape * (1 + 0.3 * np.sin(5 * x + t)) for t in range(max(measurements, 1))]
    image = np.stack(images) + rng.normal(0, 25, (len(images), *shape.shape))
    return Volume("s99", np.round(image if measurements else image[0]).astype(np.int16), "all")


def needs(codec: str) -> None:
    if reason := peers_video.missing(codec):
        pytest.skip(reason)


@pytest.mark.parametrize("codec", peers_video.PEERS)
def test_every_video_codec_lands_just_above_the_target(codec):
    needs(codec)
    volume = body(4 if codec in peers_video.FOUR_D_ONLY else 0)
    row = peers_video.PEERS[codec](volume, 40.0)
    assert 40.0 <= row["psnr"] <= 40.8  # steps are coarse for what is small
    assert volume.scaling_bytes < row["bytes"] < volume.image.nbytes


@pytest.mark.parametrize("video", [peers_video.X265, peers_video.SVT_AV1, peers_video.LIBAOM], ids=lambda v: v.name)
def test_frames_come_back_in_order_and_in_size(video):
    needs(video.name)
    frames = np.repeat(np.arange(7, dtype=np.uint16) * 100, 64 * 66).reshape(7, 64, 66)
    for bits in video.bits:
        packets = video.encode(frames, bits, 20.0, video.fast)
        decoded = peers_video.decode(packets, video.decoder)
        assert decoded.shape == frames.shape
        assert np.abs(decoded.astype(int) - frames).max() <= 20


@needs_av
def test_av1_streams_are_counted_without_delimiters_and_are_still_whole():
    frames = peers_video.padded(np.round(body().unit[0] * 1023).astype(np.uint16), 64)
    packets = peers_video.svt_av1(frames, 10, 30.0, "8")
    assert not any(packet.startswith(b"\x12\x00") for packet in packets)
    apart, together = (peers_video.decode(parts, "libdav1d") for parts in (packets, [b"".join(packets)]))
    assert np.array_equal(apart, together)


def test_frames_are_padded_by_their_edges():
    frames = np.arange(2 * 3 * 65, dtype=np.uint16).reshape(2, 3, 65)
    wide = peers_video.padded(frames, 64)
    assert wide.shape == (2, 64, 72)
    assert np.array_equal(wide[:, :3, :65], frames) and (wide[:, 3:, 71] == frames[:, -1:, -1]).all()


def test_a_quantiser_and_its_step_belong_together():
    for crf in (0.0, 5.5, 23.5, 24.0, 40.0, 63.0):
        assert peers_video.crf_of(peers_video.step(crf)) == pytest.approx(crf, abs=0.05)
    assert peers_video.scaled(peers_video.SVT_AV1, 10, 30.25) == (30.25, 1023)
    whole, top = peers_video.scaled(peers_video.LIBAOM, 12, 30.5)
    assert whole == 30 and 0.95 < top / 4095 < 1


@pytest.mark.parametrize("start", [0.0, 20.0, 63.0])
@pytest.mark.parametrize("psnr", [22.03, 35.0, 48.0])
def test_a_search_ends_at_the_coarsest_quantiser_that_is_good_enough(monkeypatch, start, psnr):
    monkeypatch.setattr(
        peers_video, "attempt", lambda _, way, crf: Outcome("", crf, int(1e4 - 100 * crf), 52 - crf / 2, 0.0, 0.0)
    )
    way = Way("", lambda _: [], lambda _: np.zeros(0), 0.0)
    known = {}
    found = peers_video.reach(body(), way, peers_video.SVT_AV1, psnr, start, known)
    assert psnr <= found.psnr < psnr + 0.125 and len(known) <= peers_video.TRIALS
    assert peers_video.reach(body(), way, peers_video.SVT_AV1, 53.0, start, {}) is None


def test_an_encoder_that_waits_for_ever_is_given_up():
    assert peers_video.limited(lambda: [b"a"], 5) == [b"a"]
    with pytest.raises(TimeoutError):
        peers_video.limited(lambda: time.sleep(5) or [], 0.05)
    with pytest.raises(ZeroDivisionError):
        peers_video.limited(lambda: [bytes(1 // 0)], 5)


def test_what_is_not_installed_is_said_and_left_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peers_video, "find_spec", lambda name: None)
    assert "PyAV" in peers_video.missing("x265") and peers_video.missing("SPERR") is None
    np.save(tmp_path / "s07.npy", body().image)
    words = ["--only-peers", "--peers", "x265", "--volumes", "s07", "--psnr", "30", "--quick"]
    assert bench_rate.main([*words, "--arrays", str(tmp_path), "--results", str(tmp_path)]) == 0
    assert "x265 is left out: PyAV is not installed" in capsys.readouterr().err
    monkeypatch.setattr(peers_video, "find_spec", find_spec)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if find_spec("av") is not None:
        assert "aom-tools" in peers_video.missing("libaom")


def test_only_the_peers_that_are_asked_for_are_measured(monkeypatch):
    monkeypatch.setattr(peers_video, "missing", lambda codec: None)
    words = ["--volumes", "s07,s12", "--psnr", "40", "--max-error", "", "--peers", "SPERR,libaom,PCA+SVT-AV1"]
    found = [(task.volume, task.codec) for task in bench_rate.tasks(bench_rate.parse(words), peers=True)]
    assert found == [("s07", "SPERR"), ("s07", "libaom"), ("s12", "SPERR"), ("s12", "PCA+SVT-AV1")]
    with pytest.raises(SystemExit):
        bench_rate.parse(["--peers", "MPEG-2"])
