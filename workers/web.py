"""`python -m workers.web --config live.yaml` is equivalent to `fer-stream worker web`."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "web", *sys.argv[1:]])
