"""`python -m workers.web --config live.yaml`: what `fer-stream worker web` runs in an installation."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "web", *sys.argv[1:]])
