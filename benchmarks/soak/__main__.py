"""Run cameras with known scenes through `fer-stream serve` under random faults, and check everything that comes out.

    python -m benchmarks.soak --cameras 3 --minutes 60 --out soak

The cameras are RTSP servers with passwords, the service is the real one with private servers and default settings.
Writes report.json, report.md and report.png to --out, and observed.pickle, all that they were made of. Needs what
tests/support/rtsp_camera.py needs, and real clips.
"""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

from benchmarks.material import FOLDER
from benchmarks.soak.faults import FAULTS


def _fault(name: str) -> str:
    if name not in FAULTS:
        raise argparse.ArgumentTypeError(f"there is no {name}, only {', '.join(FAULTS)}")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="of scenes and faults")
    parser.add_argument("--every", type=float, default=30.0, help="seconds from a recovery to the next fault, about")
    parser.add_argument(
        "--faults", nargs="*", metavar="FAULT", type=_fault, default=list(FAULTS), help=f"all of {', '.join(FAULTS)}"
    )
    parser.add_argument("--clips", type=Path, default=FOLDER / "clips", help="where heads are cut from")
    parser.add_argument(
        "--weights", type=Path, default=FOLDER / "detectors" / "face_detection_yunet_2023mar.onnx", help="YuNet, ONNX"
    )
    parser.add_argument("--out", type=Path, default=Path("soak"))
    options = parser.parse_args()

    from benchmarks.soak.observe import Plan, observe
    from benchmarks.soak.plot import plot
    from benchmarks.soak.report import report
    from benchmarks.soak.summary import summary

    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        options.cameras, options.minutes, options.seed, options.every, options.faults, options.clips, options.weights
    )
    seen = observe(plan)
    with (options.out / "observed.pickle").open("wb") as file:
        pickle.dump(seen, file)
    found = report(seen)
    (options.out / "report.json").write_text(json.dumps(found, indent=1))
    (options.out / "report.md").write_text(summary(found))
    plot(seen, options.out / "report.png")
    print(summary(found))


if __name__ == "__main__":
    main()
