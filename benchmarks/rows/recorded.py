"""Recorded video on one core: the whole job, decoding alone and the peers, in turn on the same clip.

The job writes its table and its timeline, and no video, picture or report. Decoding alone is PyAV with one thread to
bgr24. Peers get the first frames of the clip, decoded by OpenCV.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from benchmarks.agreement import Recall, accuracy, full_size, recall
from benchmarks.file_job import decode_alone
from benchmarks.goals import Goal, Line, NotMeasurable, Rounds
from benchmarks.material import clip_frames
from benchmarks.peers import PEERS, PeerProcess
from benchmarks.rows import Options, available_cores, pinned
from benchmarks.scenes import encode_video, frame_rate, resized
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.records import F32

_TO_DECODING = Goal(0.5)
_TO_FER = Goal(20.0)
_HD = (1920, 1080)


def one_face(options: Options) -> Iterator[Line]:
    """640×360, one face, every frame."""
    return measure(options, options.clip("one_face_crying"), peer_frames=40 if options.quick else 120)


def three_faces(options: Options) -> Iterator[Line]:
    """1080p, three faces: a small clip enlarged, forwards and backwards, since no large one may be handed on."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        clip = options.clip("three_faces")
        images = list(resized(clip, frame_rate(clip), _HD))
        large = Path(folder) / "three-faces-1080p.mp4"
        times = 1 if options.quick else 3
        encode_video(chain.from_iterable((*images, *images[::-1]) for _ in range(times)), large, 12, as_camera=False)
        del images
        yield from measure(options, large, peer_frames=5 if options.quick else 10)


def measure(options: Options, clip: Path, *, peer_frames: int) -> Iterator[Line]:
    """The lines of one clip."""
    frames = sum(1 for _ in clip_frames(clip, every=1))
    with pinned(available_cores(1)), ExitStack() as stack:
        engine = FileProcessor(options.settings, threads=1)
        peers = {name: _Asked(clip, peer_frames) for name in PEERS}
        for name, peer in peers.items():
            peer.begin(name, stack)
        loaded = {name: peer for name, peer in peers.items() if peer.running}
        works: dict[str, Callable[[], object]] = {
            "job": lambda: job(engine, clip),
            "decode": lambda: decode_alone(clip),
            **{name: peer.ask for name, peer in loaded.items()},
        }
        rounds = Rounds(works)
        rounds.run(options.rounds)
    truth = full_size(clip, options.weights)
    yield Line("frames/s", rounds.rate("job", frames), "fps", accuracy=accuracy(clip, options.settings, truth))
    yield Line("… of decoding alone", rounds.ratio("job", "decode"), "×", _TO_DECODING)
    for name, peer in peers.items():
        goal = _TO_FER if name == "fer" else None
        what = f"… of {PEERS[name].title}"
        if not peer.running:
            yield Line(what, unit="×", goal=goal, unmeasured_reason=peer.why_not)
            continue
        fps = rounds.rate(name, min(frames, peer_frames))
        ratio = rounds.ratio("job", name, (frames, min(frames, peer_frames)))
        yield Line(f"{PEERS[name].title}, frames/s", fps, "fps", accuracy=str(peer.recall(truth)))
        yield Line(what, ratio, "×", goal)


def job(engine: FileProcessor, clip: Path) -> None:
    """The whole job once."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        process_file(engine, FileTask(clip, "clip", Path(folder)))


@dataclass(slots=True)
class _Asked:
    """A peer that is asked about the first frames of a clip, or why it cannot be."""

    clip: Path
    frames: int
    running: PeerProcess | None = None
    why_not: str = ""
    found: list[F32] = field(default_factory=list)

    def begin(self, name: str, stack: ExitStack) -> None:
        try:
            self.running = stack.enter_context(PeerProcess(PEERS[name]))
            self.running.detect(self.clip, 1)
        except NotMeasurable as error:
            self.running, self.why_not = None, str(error)

    def ask(self) -> None:
        assert self.running is not None
        self.found = self.running.detect(self.clip, self.frames)

    def recall(self, truth: list[F32]) -> Recall:
        return recall(self.found, truth)
