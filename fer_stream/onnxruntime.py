"""A graph in ONNX Runtime on the CPU, as the detector and the classifier run theirs."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
)
"""What `open_session` raises for bytes that are no ONNX graph."""


def open_session(graph: bytes | Path, *, threads: int) -> ort.InferenceSession:
    """A session on `threads` cores, of a file or of its content. Raises one of `LOAD_ERRORS`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A thread that spins while it waits for the next picture burns a core that another process needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
