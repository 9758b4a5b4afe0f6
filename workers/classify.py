"""`python -m workers.classify --config live.yaml` is equivalent to `fer-stream worker classify`."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "classify", *sys.argv[1:]])
