"""`python -m workers.jobs --config live.yaml` is equivalent to `fer-stream worker jobs`."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "jobs", *sys.argv[1:]])
