"""The sound of a file, carried over into the annotated video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
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

_COPIED_FROM_HZ = {"aac": 7_350, "mp3": 16_000}
"""What browsers play inside MP4, and from which rate on MP4 takes it; anything else becomes AAC."""

_AAC_RATES_HZ = {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000}


class AudioRemuxer:
    """The first audio stream of `source` that can be decoded, on its way into `container` in step with the pictures.

    Media time 0 is the start of the source, as it is for the pictures; what sounds before it is left out. Sound that
    cannot be read is left out too, packet by packet: the pictures go on without it.
    """

    def __init__(self, source: InputContainer, stream: AudioStream, container: OutputContainer) -> None:
        self._source = source
        self._stream = stream
        self._container = container
        self._start_s = (source.start_time or 0) / av.time_base
        copied = _is_copied(stream.codec_context)
        self._output = container.add_stream_from_template(stream) if copied else _aac(container, stream)
        self._packets = self._in_order(self._copied() if copied else self._transcoded())
        self._next: av.Packet[Any] | None = None

    @classmethod
    def open(cls, path: Path, container: OutputContainer) -> AudioRemuxer | None:
        """The sound of `path`, or None where it has none."""
        source = av.open(str(path.absolute()), metadata_errors="replace")
        for stream in source.streams.audio:
            # A stream of a kind that this FFmpeg does not know has no context.
            if stream.codec_context is not None:
                return cls(source, stream, container)
        source.close()
        return None

    def copy_until(self, time_s: float | None) -> None:
        """Write what sounds before media time `time_s`; None is everything that is left."""
        self._next = self._next or next(self._packets, None)
        while self._next is not None and (time_s is None or _time_s(self._next) < time_s):
            # The header of each packet of a transport stream is checked on its way into an MP4.
            with suppress(av.error.InvalidDataError):
                self._container.mux(self._next)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Release the source."""
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
        uniform = _Resampler(self._output.codec_context)
        for packet in self._read():
            # A decoder that meets bit errors has more to say than InvalidDataError, and makes frames that the encoder
            # refuses.
            with suppress(av.FFmpegError):
                for frame in self._stream.codec_context.decode(packet):
                    if self._to_media_time(frame):
                        for ready in uniform.frames(frame):
                            yield from self._output.encode(ready)
        yield from self._output.encode(None)

    def _to_media_time(self, frame: AudioFrame) -> bool:
        """Count `frame` from media time 0, in samples of the output; is it to be heard at all?"""
        if frame.pts is None or frame.time_base is None:
            return False
        clock = Fraction(1, self._output.codec_context.sample_rate)
        frame.pts, frame.time_base = round((frame.pts * frame.time_base - self._start_s) / clock), clock
        return frame.pts >= 0

    def _read(self) -> Iterator[av.Packet[Any]]:
        try:
            yield from self._source.demux(self._stream)
        except av.error.FFmpegError:
            # The file is damaged from here on; the summary says so, from the pictures.
            return

    def _in_order(self, packets: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
        last = None
        for packet in packets:
            # A damaged file may step back in time, and an MP4 cannot.
            if packet.dts is not None and (last is None or packet.dts > last):
                last = packet.dts
                yield packet


class _Resampler:
    """Gives frames the format, layout and rate of `encoder`, also where theirs change, as between two programmes."""

    def __init__(self, encoder: AudioCodecContext) -> None:
        self._encoder = encoder
        self._taken: tuple[str, str, int] | None = None

    def frames(self, frame: AudioFrame) -> list[AudioFrame]:
        """`frame` as the encoder takes it; part of it may come with the next one."""
        given = (frame.format.name, frame.layout.name, frame.sample_rate)
        if given != self._taken:
            to = self._encoder
            self._resampler = AudioResampler(to.format, to.layout, to.sample_rate)
            self._taken = given
        return self._resampler.resample(frame)


def _is_copied(codec: AudioCodecContext) -> bool:
    return codec.sample_rate >= _COPIED_FROM_HZ.get(codec.codec.canonical_name, math.inf)


def _aac(container: OutputContainer, stream: AudioStream) -> AudioStream:
    rate_hz = stream.codec_context.sample_rate
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    return container.add_stream("aac", rate=rate_hz if rate_hz in _AAC_RATES_HZ else 48_000, layout=layout)


def _time_s(packet: av.Packet[Any]) -> float:
    return float((packet.pts or 0) * packet.time_base)
