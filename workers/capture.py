"""`python -m workers.capture --config live.yaml` is equivalent to `fer-stream worker capture`."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "capture", *sys.argv[1:]])
