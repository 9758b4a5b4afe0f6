"""`python -m workers.classifiers --config live.yaml`: what `fer-stream worker classify` runs in an installation."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "classify", *sys.argv[1:]])
