"""Audio of annotated videos."""

from __future__ import annotations

import random
import shutil
import subprocess
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import pytest
from av.audio.stream import AudioStream

from fer_stream.outputs.audio import AudioClip
from fer_stream.outputs.mp4 import Mp4File

RATE_HZ = 44_100


def _clip(path: Path, codec: str, *, seconds: float = 2.0, click_s: float = 1.0, channels: int = 1) -> Path:
    """Write a gray clip of 25 fps whose audio is silent except for a short tone from `click_s`."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time_s) * ((time_s >= click_s) & (time_s < click_s + 0.2))
    rate = 48_000 if codec == "libopus" else RATE_HZ
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="mono" if channels == 1 else "5.1")
        assert isinstance(audio, AudioStream)
        for index in range(round(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.repeat(tone[None].astype(np.float32), channels, axis=0)
        audio_frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono" if channels == 1 else "5.1")
        audio_frame.rate, audio_frame.pts, audio_frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(audio.encode(audio_frame))
        container.mux(audio.encode(None))
    return path


def _ffmpeg(path: Path, codec: str, *audio_options: str, seconds: int = 4) -> Path:
    """Write a gray clip of 25 fps with a tone of 1 kHz."""
    binary = shutil.which("ffmpeg")
    assert binary, "ffmpeg is not installed: apt-get install ffmpeg"
    gray, tone = f"color=gray:s=64x48:r=25:d={seconds}", f"sine=1000:duration={seconds}"
    lavfi = ("-f", "lavfi", "-i")
    command = [
        binary,
        "-v",
        "error",
        *lavfi,
        gray,
        *lavfi,
        tone,
        "-c:v",
        "mpeg4",
        "-c:a",
        codec,
        *audio_options,
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


def _audible_s(path: Path, from_s: float = 0.0) -> float:
    """Return the seconds after `from_s` that are not silent."""
    audible_s = 0.0
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            # Damaged packets can be copied unchanged.
            with suppress(av.error.InvalidDataError):
                for frame in packet.decode():
                    assert isinstance(frame, av.AudioFrame)
                    if (frame.time or 0.0) >= from_s and np.abs(frame.to_ndarray()).max():
                        audible_s += frame.samples / frame.sample_rate
    return audible_s


def _annotate(clip: Path, target: Path, *, seconds: float = 2.0, full_audio: bool = True) -> Path:
    image = np.full((48, 64, 3), 90, np.uint8)
    with Mp4File(target, audio_from=AudioClip(clip)) as video:
        for index in range(round(25 * seconds)):
            video.add(image, index / 25)
        video.close(full_audio=full_audio)
    return target


def _audio_properties(path: Path) -> tuple[str, float, float]:
    """Return codec, time of the first loud sample, and end of the audio."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        codec = stream.codec_context.codec.canonical_name
        frames = [(frame.time or 0.0, frame.to_ndarray(), frame.sample_rate) for frame in container.decode(audio=0)]
    for start_s, samples, rate in frames:
        peaks = np.abs(samples).max(axis=0)
        if peaks.max() > 0.2 * (1 if samples.dtype.kind == "f" else 32768):
            loud_s = start_s + float(np.argmax(peaks > 0.5 * peaks.max())) / rate
            return codec, loud_s, frames[-1][0] + frames[-1][1].shape[1] / rate
    raise AssertionError("the clip has no tone")


@pytest.mark.parametrize(
    ("container", "codec", "expected_codec"),
    [
        ("mp4", "aac", "aac"),
        ("mp4", "libmp3lame", "mp3"),
        ("ts", "aac", "aac"),
        ("mkv", "flac", "aac"),
        ("avi", "pcm_s16le", "aac"),
        ("mkv", "libopus", "aac"),
    ],
)
def test_audio_is_synchronous_and_in_a_codec_that_browsers_play(
    container: str, codec: str, expected_codec: str, tmp_path: Path
) -> None:
    clip = _clip(tmp_path / f"clip.{container}", codec)
    out_codec, loud_s, end_s = _audio_properties(_annotate(clip, tmp_path / "out.mp4"))
    assert out_codec == expected_codec
    assert loud_s == pytest.approx(1.0, abs=0.03)
    assert end_s == pytest.approx(2.0, abs=0.1)


def test_surround_is_mixed_down_to_two_channels(tmp_path: Path) -> None:
    out = _annotate(_clip(tmp_path / "clip.mkv", "ac3", channels=6), tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.channels == 2
    assert _audio_properties(out)[1] == pytest.approx(1.0, abs=0.03)


def test_audio_of_an_interrupted_run_ends_with_the_frames(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4", "aac", seconds=6.0, click_s=0.5)
    assert _audio_properties(_annotate(clip, tmp_path / "all.mp4", seconds=2.0))[2] == pytest.approx(6.0, abs=0.1)
    stopped = _annotate(clip, tmp_path / "part.mp4", seconds=2.0, full_audio=False)
    assert _audio_properties(stopped)[2] == pytest.approx(2.0, abs=0.1)


def test_audio_and_frames_are_interleaved(tmp_path: Path) -> None:
    """A browser can play the beginning without loading the end."""
    out = _annotate(_clip(tmp_path / "clip.mp4", "aac", seconds=20.0), tmp_path / "out.mp4", seconds=20.0)
    with av.open(str(out)) as container:
        order = [packet.stream.type for packet in container.demux() if packet.size]
    quarter = order[: len(order) // 4]
    assert 0.15 < quarter.count("audio") / order.count("audio") < 0.35


def test_clip_without_audio_has_none_in_the_output(clips: Path, tmp_path: Path) -> None:
    out = _annotate(clips / "three_faces.mp4", tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        assert not container.streams.audio


def test_audio_of_a_truncated_clip_is_kept_up_to_its_end(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mkv", "flac", seconds=8.0, click_s=0.5)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    codec, loud_s, _ = _audio_properties(_annotate(clip, tmp_path / "out.mp4", seconds=3.0))
    assert codec == "aac"
    assert loud_s == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("lost", [1, 2, 5, 9])
def test_audio_continues_after_a_lost_packet_of_a_transport_stream(lost: int, tmp_path: Path) -> None:
    whole = _ffmpeg(tmp_path / "clip.ts", "aac").read_bytes()
    packets = [whole[start : start + 188] for start in range(0, len(whole), 188)]
    audio_packets = [index for index, packet in enumerate(packets) if int.from_bytes(packet[1:3]) & 0x1FFF == 0x101]
    del packets[audio_packets[lost]]
    (tmp_path / "clip.ts").write_bytes(b"".join(packets))
    assert _audible_s(_annotate(tmp_path / "clip.ts", tmp_path / "out.mp4", seconds=4.0)) > 3.5


@pytest.mark.parametrize(
    ("rate_hz", "expected_codec"), [(8_000, "aac"), (11_025, "aac"), (16_000, "mp3"), (22_050, "mp3")]
)
def test_mp3_is_copied_if_mp4_supports_its_rate(rate_hz: int, expected_codec: str, tmp_path: Path) -> None:
    clip = _ffmpeg(tmp_path / "clip.avi", "libmp3lame", "-ar", str(rate_hz))
    out = _annotate(clip, tmp_path / "out.mp4", seconds=4.0)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == expected_codec
    assert _audible_s(out) == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize(("codec", "before", "after"), [("ac3", 6, 2), ("mp2", 2, 1), ("ac3", 1, 6)])
def test_audio_continues_when_the_number_of_channels_changes(
    codec: str, before: int, after: int, tmp_path: Path
) -> None:
    """As between two programmes of a TV recording."""
    for number, channels in enumerate((before, after)):
        _ffmpeg(tmp_path / f"{number}.ts", codec, "-ac", str(channels), "-output_ts_offset", str(4 * number))
    clip = tmp_path / "clip.ts"
    clip.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    out = _annotate(clip, tmp_path / "out.mp4", seconds=8.0)
    assert _audible_s(out) == pytest.approx(8.0, abs=0.3)
    assert _audible_s(out, from_s=4.5) == pytest.approx(3.5, abs=0.2)


@pytest.mark.parametrize(("codec", "container"), [("ac3", "ts"), ("eac3", "ts"), ("alac", "mov"), ("mp2", "ts")])
def test_bit_errors_affect_only_the_audio_near_them(codec: str, container: str, tmp_path: Path) -> None:
    clip = _ffmpeg(tmp_path / f"clip.{container}", codec, "-ac", "2")
    data = bytearray(clip.read_bytes())
    rng = random.Random(0)
    for _ in range(len(data) // 1500):
        # Except in the header of an MOV and in its index at the end.
        data[rng.randrange(200, len(data) * 9 // 10)] ^= 1 << rng.randrange(8)
    clip.write_bytes(data)
    assert _audible_s(_annotate(clip, tmp_path / "out.mp4", seconds=4.0)) > 0.5


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.mkv", "flac"), ("a.ts", "libmp3lame"), ("a.avi", "pcm_s16le")],
)
@pytest.mark.parametrize("start_s", [0.0, 0.7, 3.2])
def test_audio_of_a_part_is_trimmed(tmp_path: Path, name: str, codec: str, start_s: float) -> None:
    clip = _clip(tmp_path / name, codec, seconds=6.0, click_s=start_s + 0.5)
    target = tmp_path / "part.mp4"
    with Mp4File(target, audio_from=AudioClip(clip, start_s, start_s + 1.2)) as video:
        for index in range(30):
            video.add(np.full((48, 64, 3), 90, np.uint8), index / 25)
        video.close(full_audio=True)
    _, loud_s, end_s = _audio_properties(target)
    assert loud_s == pytest.approx(0.5, abs=0.03)
    assert end_s == pytest.approx(1.2, abs=0.05)
