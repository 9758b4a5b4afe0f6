"""How fast each runtime classifies, held against LiteRT's bare invoke: the numbers of docs/evidence/backends.md.

    python -m benchmarks.backends [--model DIR] [--threads 1 2] [--rounds 15]

Every runtime has a process of its own, pinned to as many cores as it has threads. They take turns, so that each round
has all of them in the same seconds. Times are medians over the rounds, in ms a face; a ratio is the median of the
ratios within a round. Machines differ and drift: quote the ratios.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import material
from fer_stream import factory
from fer_stream.classify.backends import cpu_flags
from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.classify.model_card import KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE, listed_files
from fer_stream.config import ModelSettings
from fer_stream.records import I64, U8

BARE = "LiteRT, invoke alone"
NEEDS = {
    "litert": ("ai-edge-litert", {LITERT_FILE}),
    "onnx": ("onnxruntime", {ONNX_FILE, ONNX_INT8_FILE}),
    "openvino": ("openvino", {ONNX_FILE, LITERT_FILE}),
    "keras": ("tensorflow", {KERAS_FILE}),
}
BATCHES = (1, 8, 32, 128)
# LiteRT's adapter runs no more at once, so neither does the bare invoke.
CHUNK = 32
FACES_A_TURN = 16

TOLD_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")

Predict = Callable[[U8], ClassifierOutput]


class Runtime:
    """A process that classifies with one runtime, on the first `threads` cores that this process may use."""

    def __init__(self, stack: ExitStack, backend: str, model: Path, threads: int) -> None:
        self._pool = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        self.loaded_s = self._pool.submit(begin, backend, model, threads).result()

    def ms_a_face(self, faces: U8) -> float:
        return self._pool.submit(time_predict, faces).result()

    def labels(self, faces: U8) -> I64:
        return self._pool.submit(predict_labels, faces).result()

    def memory_mb(self) -> float:
        return self._pool.submit(own_memory_mb).result()


predict: Predict
"""Of the child process, which `begin` sets."""


def begin(backend: str, model: Path, threads: int) -> float:
    """In the child: load the runtime and classify one face; the seconds that took."""
    global predict
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    began_s = time.perf_counter()
    predict = bare(model, threads) if backend == BARE else adapter(backend, model, threads)
    predict(np.zeros((1, 48, 48), np.uint8))
    return time.perf_counter() - began_s


def adapter(backend: str, model: Path, threads: int) -> Predict:
    settings = ModelSettings.model_validate({"backend": backend, "path": model})
    return factory.make_classifier(settings, threads=threads).predict


def bare(model: Path, threads: int) -> Predict:
    """LiteRT's invoke, as often as a batch needs it, on what lies in the input anyhow. It answers nothing."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model / LITERT_FILE), num_threads=threads)
    tensor = interpreter.get_input_details()[0]["index"]
    size = 0

    def invoke(faces: U8) -> ClassifierOutput:
        nonlocal size
        if size != min(len(faces), CHUNK):
            size = min(len(faces), CHUNK)
            interpreter.resize_tensor_input(tensor, (size, 48, 48, 1))
            interpreter.allocate_tensors()
        for _ in range(ceil(len(faces) / CHUNK)):
            interpreter.invoke()
        return ClassifierOutput(np.empty((0, 7), np.float32))

    return invoke


def time_predict(faces: U8) -> float:
    """In the child: ms a face, after one run that is not counted, since it may be the first of its size."""
    predict(faces)
    turns = ceil(FACES_A_TURN / len(faces))
    began_s = time.perf_counter()
    for _ in range(turns):
        predict(faces)
    return 1e3 * (time.perf_counter() - began_s) / turns / len(faces)


def predict_labels(faces: U8) -> I64:
    labels: I64 = predict(faces).probs.argmax(axis=1)
    return labels


def own_memory_mb() -> float:
    """In the child: its proportional share of the memory (PSS)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.findall(r"Pss:\s+(\d+)", text)[0]) / 1024


def present(model: Path) -> list[str]:
    """The runtimes that are installed and for which the folder holds a file."""
    files = listed_files(model)
    return [name for name, (package, any_of) in NEEDS.items() if factory.versions().get(package) and any_of & files]


def compare(model: Path, faces: U8, threads: int, rounds: int) -> list[list[str]]:
    """A row for each runtime."""
    with ExitStack() as stack:
        runtimes = {name: Runtime(stack, name, model, threads) for name in (BARE, *present(model))}
        times: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in runtimes}
        for _ in range(rounds):
            for batch in BATCHES:
                for name, runtime in runtimes.items():
                    times[name][batch].append(runtime.ms_a_face(faces[:batch]))
        memory = {name: runtime.memory_mb() for name, runtime in runtimes.items()}
        labels = {name: runtime.labels(faces) for name, runtime in runtimes.items() if name != BARE}
        return [
            [
                name,
                *(cell(times[name][batch], times[BARE][batch]) for batch in BATCHES),
                f"{material.percent(labels[name] == labels['keras']):.1f} %" if name in labels else "",
                f"{memory[name]:.0f}",
                f"{runtime.loaded_s:.1f}",
            ]
            for name, runtime in runtimes.items()
        ]


def cell(own: list[float], bare_ms: list[float]) -> str:
    ratio = median(one / other for one, other in zip(own, bare_ms, strict=True))
    return f"{median(own):.2f} ({ratio:.2f})"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    flags = [flag for flag in TOLD_FLAGS if flag in cpu_flags()]
    voices = ("ai-edge-litert", "onnxruntime", "openvino", "tensorflow", "numpy")
    versions = ", ".join(f"{name} {version}" for name, version in factory.versions().items() if name in voices)
    return f"{model}, {' '.join(flags) or 'no AVX2'}, {os.cpu_count()} cores; {versions}."


def main() -> None:
    parser = material.parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    faces, _ = material.public_test(options.fer2013, options.images)
    print(machine())
    head = ["", *(f"batch {batch}" for batch in BATCHES), "label of Keras", "PSS, MB", "start, s"]
    for threads in options.threads:
        print(f"\nms a face (ratio to the bare invoke), {threads} threads:\n")
        print(material.table(head, compare(options.model, faces, threads, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
