from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from fer_stream.writers.mp4 import Mp4File

RATE_HZ = 44_100


def _clip(path: Path, codec: str, *, seconds: float = 2.0, click_s: float = 1.0, channels: int = 1) -> Path:
    """A gray clip of 25 fps whose sound is silence with a short tone from `click_s` on."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time_s) * ((time_s >= click_s) & (time_s < click_s + 0.2))
    rate = 48_000 if codec == "libopus" else RATE_HZ
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="mono" if channels == 1 else "5.1")
        assert isinstance(audio, AudioStream)
        for index in range(round(25 * seconds)):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        samples = np.repeat(tone[None].astype(np.float32), channels, axis=0)
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono" if channels == 1 else "5.1")
        sound.rate, sound.pts, sound.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def _annotate(clip: Path, target: Path, *, seconds: float = 2.0, whole_sound: bool = True) -> Path:
    picture = np.full((48, 64, 3), 90, np.uint8)
    with Mp4File(target, audio_from=clip) as video:
        for index in range(round(25 * seconds)):
            video.add(picture, index / 25)
        video.close(whole_sound=whole_sound)
    return target


def _sound(path: Path) -> tuple[str, float, float]:
    """Codec, time at which it becomes loud and time of the last sample."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        codec = stream.codec_context.codec.canonical_name
        frames = [(frame.time or 0.0, frame.to_ndarray(), frame.sample_rate) for frame in container.decode(audio=0)]
    for start_s, samples, rate in frames:
        peaks = np.abs(samples).max(axis=0)
        if peaks.max() > 0.2 * (1 if samples.dtype.kind == "f" else 32768):
            loud_s = start_s + float(np.argmax(peaks > 0.5 * peaks.max())) / rate
            return codec, loud_s, frames[-1][0] + frames[-1][1].shape[1] / rate
    raise AssertionError("the tone is missing")


@pytest.mark.parametrize(
    ("container", "codec", "becomes"),
    [
        ("mp4", "aac", "aac"),
        ("mp4", "libmp3lame", "mp3"),
        ("ts", "aac", "aac"),
        ("mkv", "flac", "aac"),
        ("avi", "pcm_s16le", "aac"),
        ("mkv", "libopus", "aac"),
    ],
)
def test_sound_is_kept_in_a_codec_that_browsers_play_and_in_step(
    container: str, codec: str, becomes: str, tmp_path: Path
) -> None:
    clip = _clip(tmp_path / f"clip.{container}", codec)
    kept, loud_s, end_s = _sound(_annotate(clip, tmp_path / "out.mp4"))
    assert kept == becomes
    assert loud_s == pytest.approx(1.0, abs=0.03)
    assert end_s == pytest.approx(2.0, abs=0.1)


def test_many_channels_become_two(tmp_path: Path) -> None:
    out = _annotate(_clip(tmp_path / "clip.mkv", "ac3", channels=6), tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.channels == 2
    assert _sound(out)[1] == pytest.approx(1.0, abs=0.03)


def test_sound_of_a_job_that_was_stopped_ends_with_the_pictures(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4", "aac", seconds=6.0, click_s=0.5)
    assert _sound(_annotate(clip, tmp_path / "all.mp4", seconds=2.0))[2] == pytest.approx(6.0, abs=0.1)
    stopped = _annotate(clip, tmp_path / "part.mp4", seconds=2.0, whole_sound=False)
    assert _sound(stopped)[2] == pytest.approx(2.0, abs=0.1)


def test_sound_and_pictures_are_interleaved(tmp_path: Path) -> None:
    """A browser that plays the beginning must not have to fetch the end."""
    out = _annotate(_clip(tmp_path / "clip.mp4", "aac", seconds=20.0), tmp_path / "out.mp4", seconds=20.0)
    with av.open(str(out)) as container:
        order = [packet.stream.type for packet in container.demux() if packet.size]
    quarter = order[: len(order) // 4]
    assert 0.15 < quarter.count("audio") / order.count("audio") < 0.35


def test_a_silent_clip_stays_silent(clips: Path, tmp_path: Path) -> None:
    out = _annotate(clips / "three_faces.mp4", tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        assert not container.streams.audio


def test_sound_of_a_truncated_clip_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mkv", "flac", seconds=8.0, click_s=0.5)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    codec, loud_s, _ = _sound(_annotate(clip, tmp_path / "out.mp4", seconds=3.0))
    assert codec == "aac"
    assert loud_s == pytest.approx(0.5, abs=0.03)
