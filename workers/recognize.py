"""`python -m workers.recognize --config live.yaml`: what `fer-stream worker recognize` runs in an installation."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "recognize", *sys.argv[1:]])
