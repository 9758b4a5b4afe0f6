"""`python -m workers.timeline --config live.yaml` is equivalent to `fer-stream worker timeline`."""

from __future__ import annotations

import sys

from fer_stream.cli import main

if __name__ == "__main__":
    main(["worker", "timeline", *sys.argv[1:]])
