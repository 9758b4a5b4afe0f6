"""Recorded video on one core: a complete run, decoding alone and the peers, alternating on the same clip.

The run writes the table and the timeline, but no video, plot or report. Decoding is PyAV with one thread to bgr24.
Peers get the first frames of the clip, decoded by OpenCV.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from benchmarks.agreement import Recall, accuracy, full_size, recall
from benchmarks.file_job import decode
from benchmarks.goals import Goal, Line, NotMeasurable, Rounds
from benchmarks.material import clip_frames
from benchmarks.peers import PEERS, PeerProcess
from benchmarks.rows import Options, available_cores, pinned
from benchmarks.scenes import encode_video, frame_rate, resized
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.records import F32

_DECODING_GOAL = Goal(0.5)
_FER_GOAL = Goal(20.0)
_HD = (1920, 1080)


def one_face(options: Options) -> Iterator[Line]:
    """Measure 640×360, one face, every frame."""
    return measure(options, options.clip("one_face_crying"), peer_frames=40 if options.quick else 120)


def three_faces(options: Options) -> Iterator[Line]:
    """Measure 1080p, three faces: a small clip scaled up, because no large one may be redistributed."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        clip = options.clip("three_faces")
        images = list(resized(clip, frame_rate(clip), _HD))
        large = Path(folder) / "three-faces-1080p.mp4"
        times = 1 if options.quick else 3
        encode_video(chain.from_iterable((*images, *images[::-1]) for _ in range(times)), large, 12, as_camera=False)
        del images
        yield from measure(options, large, peer_frames=5 if options.quick else 10)


def measure(options: Options, clip: Path, *, peer_frames: int) -> Iterator[Line]:
    """Yield the lines of one clip."""
    frames = sum(1 for _ in clip_frames(clip, every=1))
    with pinned(available_cores(1)), ExitStack() as stack:
        processor = FileProcessor(options.settings, threads=1)
        peers = {name: _Peer(clip, peer_frames) for name in PEERS}
        for name, peer in peers.items():
            peer.start(name, stack)
        loaded = {name: peer for name, peer in peers.items() if peer.process}
        works: dict[str, Callable[[], object]] = {
            "run": lambda: run(processor, clip),
            "decode": lambda: decode(clip),
            **{name: peer.detect for name, peer in loaded.items()},
        }
        rounds = Rounds(works)
        rounds.run(options.rounds)
    truth = full_size(clip, options.weights)
    yield Line("frames/s", rounds.rate("run", frames), "fps", accuracy=accuracy(clip, options.settings, truth))
    yield Line("… of decoding alone", rounds.ratio("run", "decode"), "×", _DECODING_GOAL)
    for name, peer in peers.items():
        goal = _FER_GOAL if name == "fer" else None
        what = f"… of {PEERS[name].title}"
        if not peer.process:
            yield Line(what, unit="×", goal=goal, unmeasured_reason=peer.unmeasured_reason)
            continue
        fps = rounds.rate(name, min(frames, peer_frames))
        ratio = rounds.ratio("run", name, (frames, min(frames, peer_frames)))
        yield Line(f"{PEERS[name].title}, frames/s", fps, "fps", accuracy=str(peer.recall(truth)))
        yield Line(what, ratio, "×", goal)


def run(processor: FileProcessor, clip: Path) -> None:
    """Process a clip once and discard the results."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        process_file(processor, FileTask(clip, "clip", Path(folder)))


@dataclass(slots=True)
class _Peer:
    """A peer that detects faces in the first frames of a clip, or the reason why it cannot be measured."""

    clip: Path
    frames: int
    process: PeerProcess | None = None
    unmeasured_reason: str = ""
    boxes: list[F32] = field(default_factory=list)

    def start(self, name: str, stack: ExitStack) -> None:
        try:
            self.process = stack.enter_context(PeerProcess(PEERS[name]))
            self.process.detect(self.clip, 1)
        except NotMeasurable as error:
            self.process, self.unmeasured_reason = None, str(error)

    def detect(self) -> None:
        assert self.process is not None
        self.boxes = self.process.detect(self.clip, self.frames)

    def recall(self, truth: list[F32]) -> Recall:
        return recall(self.boxes, truth)
