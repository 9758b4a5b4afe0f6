"""Speed of each backend, compared with LiteRT's bare invoke: the numbers in docs/evidence/backends.md.

    python -m benchmarks.backends [--model DIR] [--threads 1 2] [--rounds 15]

Each backend runs in its own process, pinned to as many cores as it has threads. The processes alternate, so that each
round measures all of them within seconds. Times are medians over the rounds in ms per face; a ratio is the median of
the ratios within a round. Machines differ and drift: quote the ratios.
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
from fer_stream.classify.backends import LITERT_FILE, cpu_flags
from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.config.settings import ModelSettings
from fer_stream.records import I64, U8

BARE = "LiteRT, invoke alone"
BATCHES = (1, 8, 32, 128)
# Batch size of the LiteRT backend.
BATCH_SIZE = 32
FACES_PER_MEASUREMENT = 16

REPORTED_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")

Predict = Callable[[U8], ClassifierOutput]


class BackendProcess:
    """A process with one backend, pinned to the first `threads` cores of this process."""

    def __init__(self, stack: ExitStack, backend: str, model: Path, threads: int) -> None:
        self._pool = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        self.loaded_s = self._pool.submit(load, backend, model, threads).result()

    def ms_per_face(self, faces: U8) -> float:
        return self._pool.submit(time_predict, faces).result()

    def labels(self, faces: U8) -> I64:
        return self._pool.submit(predict_labels, faces).result()

    def memory_mb(self) -> float:
        return self._pool.submit(own_memory_mb).result()


predict: Predict
"""Set by `load` in the child process."""


def load(backend: str, model: Path, threads: int) -> float:
    """In the child process: load the backend and classify one face; return the seconds this took."""
    global predict
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    start_s = time.perf_counter()
    predict = bare(model, threads) if backend == BARE else adapter(backend, model, threads)
    predict(np.zeros((1, 48, 48), np.uint8))
    return time.perf_counter() - start_s


def adapter(backend: str, model: Path, threads: int) -> Predict:
    settings = ModelSettings.model_validate({"backend": backend, "path": model})
    return factory.make_classifier(settings, threads=threads).predict


def bare(model: Path, threads: int) -> Predict:
    """Return LiteRT's invoke on uninitialised input, called as often as a batch requires, without results."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model / LITERT_FILE), num_threads=threads)
    tensor = interpreter.get_input_details()[0]["index"]
    size = 0

    def invoke(faces: U8) -> ClassifierOutput:
        nonlocal size
        if size != min(len(faces), BATCH_SIZE):
            size = min(len(faces), BATCH_SIZE)
            interpreter.resize_tensor_input(tensor, (size, 48, 48, 1))
            interpreter.allocate_tensors()
        for _ in range(ceil(len(faces) / BATCH_SIZE)):
            interpreter.invoke()
        return ClassifierOutput(np.empty((0, 7), np.float32))

    return invoke


def time_predict(faces: U8) -> float:
    """In the child process: return ms per face, after a warm-up run, which may be the first of its size."""
    predict(faces)
    runs = ceil(FACES_PER_MEASUREMENT / len(faces))
    start_s = time.perf_counter()
    for _ in range(runs):
        predict(faces)
    return 1e3 * (time.perf_counter() - start_s) / runs / len(faces)


def predict_labels(faces: U8) -> I64:
    labels: I64 = predict(faces).probs.argmax(axis=1)
    return labels


def own_memory_mb() -> float:
    """In the child process: return its proportional set size (PSS)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.findall(r"Pss:\s+(\d+)", text)[0]) / 1024


def compare(model: Path, faces: U8, threads: int, rounds: int) -> list[list[str]]:
    """Return a row for each backend."""
    with ExitStack() as stack:
        backends = {
            name: BackendProcess(stack, name, model, threads)
            for name in (BARE, *factory.available_backends_for(ModelSettings(path=model)))
        }
        times: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in backends}
        for _ in range(rounds):
            for batch in BATCHES:
                for name, backend in backends.items():
                    times[name][batch].append(backend.ms_per_face(faces[:batch]))
        memory = {name: backend.memory_mb() for name, backend in backends.items()}
        labels = {name: backend.labels(faces) for name, backend in backends.items() if name != BARE}
        return [
            [
                name,
                *(cell(times[name][batch], times[BARE][batch]) for batch in BATCHES),
                f"{material.percent(labels[name] == labels['keras']):.1f} %" if name in labels else "",
                f"{memory[name]:.0f}",
                f"{backend.loaded_s:.1f}",
            ]
            for name, backend in backends.items()
        ]


def cell(own: list[float], bare_ms: list[float]) -> str:
    ratio = median(one / other for one, other in zip(own, bare_ms, strict=True))
    return f"{median(own):.2f} ({ratio:.2f})"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    flags = [flag for flag in REPORTED_FLAGS if flag in cpu_flags()]
    libraries = ("ai-edge-litert", "onnxruntime", "openvino", "tensorflow", "numpy")
    versions = ", ".join(f"{name} {version}" for name, version in factory.versions().items() if name in libraries)
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
        print(f"\nms per face (ratio to the bare invoke), {threads} threads:\n")
        print(material.table(head, compare(options.model, faces, threads, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
