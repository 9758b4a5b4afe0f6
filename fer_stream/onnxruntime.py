"""ONNX Runtime sessions on the CPU, shared by the detector and the classifier."""

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
"""Exceptions that `open_session` raises for content that is not a valid ONNX graph."""


def open_session(graph: bytes | Path, *, threads: int) -> ort.InferenceSession:
    """Return a session on `threads` cores for the path or the content of an ONNX file.

    Raises one of `LOAD_ERRORS` if it is not valid.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin while they wait for the next frame would occupy cores that other processes need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
