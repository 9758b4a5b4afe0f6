"""Audio of a file, copied or transcoded into the annotated video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from fer_stream.capture.decoder import is_seekable

_COPIED_FROM_HZ = {"aac": 7_350, "mp3": 16_000}
"""Codecs that browsers play in MP4, and the lowest rate that MP4 allows for each; everything else is transcoded."""

# Audio decoded before the first sample that is kept: codecs need the packets before it.
_PREROLL_S = 0.5

_AAC_RATES_HZ = {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000}


@dataclass(frozen=True, slots=True)
class AudioClip:
    """Audio of the file `path` from media time `start_s` to `end_s` (None: the end of the file), in seconds."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def length_s(self) -> float | None:
        """Length in seconds, if the end is known."""
        return None if self.end_s is None else self.end_s - self.start_s


class AudioRemuxer:
    """Writes an audio stream of `source` to `container`, in step with the frames.

    Time 0 of the container is `start_s` of the source; earlier audio is omitted. Packets that cannot be decoded are
    omitted too; the video continues without them.
    """

    def __init__(
        self, source: InputContainer, stream: AudioStream, container: OutputContainer, *, start_s: float = 0.0
    ) -> None:
        self._source = source
        self._stream = stream
        self._container = container
        self._start_s = (source.start_time or 0) / av.time_base + start_s
        if start_s > 0 and is_seekable(source):
            with suppress(av.FFmpegError):
                source.seek(round(self._start_s * av.time_base))
        copied = _can_copy(stream.codec_context)
        self._output = container.add_stream_from_template(stream) if copied else _add_aac(container, stream)
        self._packets = self._monotonic(self._copied() if copied else self._transcoded())
        self._next: av.Packet[Any] | None = None

    @classmethod
    def open(cls, clip: AudioClip, container: OutputContainer) -> AudioRemuxer | None:
        """Open the first audio stream of `clip` that can be decoded; return None if there is none."""
        source = av.open(str(clip.path.absolute()), metadata_errors="replace")
        for stream in source.streams.audio:
            # A stream with a codec unknown to this FFmpeg has no context.
            if stream.codec_context is not None:
                return cls(source, stream, container, start_s=clip.start_s)
        source.close()
        return None

    def copy_until(self, time_s: float | None) -> None:
        """Write the audio before media time `time_s`, or all remaining audio if it is None."""
        self._next = self._next or next(self._packets, None)
        while self._next is not None and (time_s is None or _time_s(self._next) < time_s):
            # FFmpeg validates the header of each packet of a transport stream when it is written to an MP4.
            with suppress(av.error.InvalidDataError):
                self._container.mux(self._next)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _copied(self) -> Iterator[av.Packet[Any]]:
        for packet in self._read():
            if packet.pts is None or packet.dts is None:
                continue
            shift = round(self._start_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.pts >= 0:
                packet.stream = self._output
                yield packet

    def _transcoded(self) -> Iterator[av.Packet[Any]]:
        resampler = _Resampler(self._output.codec_context)
        for packet in self._read():
            # On bit errors, the decoder raises more than InvalidDataError and returns frames that the encoder
            # rejects.
            with suppress(av.FFmpegError):
                for frame in self._stream.codec_context.decode(packet):
                    if self._to_media_time(frame):
                        for resampled in resampler.frames(frame):
                            yield from self._output.encode(resampled)
        yield from self._output.encode(None)

    def _to_media_time(self, frame: AudioFrame) -> bool:
        """Set the time of `frame` to media time, in samples of the output; return False if it must be omitted."""
        if frame.pts is None or frame.time_base is None:
            return False
        time_base = Fraction(1, self._output.codec_context.sample_rate)
        frame.pts, frame.time_base = round((frame.pts * frame.time_base - self._start_s) / time_base), time_base
        return frame.pts >= 0

    def _read(self) -> Iterator[av.Packet[Any]]:
        try:
            for packet in self._source.demux(self._stream):
                if packet.pts is None or packet.pts * packet.time_base >= self._start_s - _PREROLL_S:
                    yield packet
        except av.error.FFmpegError:
            # The rest of the file is damaged, which the decoder of the frames reports.
            return

    def _monotonic(self, packets: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
        last = None
        for packet in packets:
            # Timestamps of a damaged file can decrease, which MP4 does not allow.
            if packet.dts is not None and (last is None or packet.dts > last):
                last = packet.dts
                yield packet


class _Resampler:
    """Converts frames to format, layout and rate of `encoder`, also if theirs change, as between two TV
    programmes."""

    def __init__(self, encoder: AudioCodecContext) -> None:
        self._encoder = encoder
        self._input: tuple[str, str, int] | None = None

    def frames(self, frame: AudioFrame) -> list[AudioFrame]:
        """Convert `frame`; a part of it may be returned by the next call."""
        properties = (frame.format.name, frame.layout.name, frame.sample_rate)
        if properties != self._input:
            encoder = self._encoder
            self._resampler = AudioResampler(encoder.format, encoder.layout, encoder.sample_rate)
            self._input = properties
        return self._resampler.resample(frame)


def _can_copy(codec: AudioCodecContext) -> bool:
    return codec.sample_rate >= _COPIED_FROM_HZ.get(codec.codec.canonical_name, math.inf)


def _add_aac(container: OutputContainer, stream: AudioStream) -> AudioStream:
    rate_hz = stream.codec_context.sample_rate
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    return container.add_stream("aac", rate=rate_hz if rate_hz in _AAC_RATES_HZ else 48_000, layout=layout)


def _time_s(packet: av.Packet[Any]) -> float:
    return float((packet.pts or 0) * packet.time_base)
