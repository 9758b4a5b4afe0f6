"""Run cameras with known scenes through `fer-stream serve` under random faults and check all results.

    python -m benchmarks.soak --cameras 3 --minutes 60 --out soak

The cameras are RTSP servers with passwords; the service uses embedded servers and default settings. Writes
report.json, report.md, report.png and the raw data, observed.pickle, to --out. Requires real clips and the
dependencies of tests/support/rtsp_camera.py.
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
        raise argparse.ArgumentTypeError(f"unknown fault {name}: expected one of {', '.join(FAULTS)}")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="seed of scenes and faults")
    parser.add_argument("--every", type=float, default=30.0, help="mean seconds from a recovery to the next fault")
    parser.add_argument(
        "--faults", nargs="*", metavar="FAULT", type=_fault, default=list(FAULTS), help=f"all of {', '.join(FAULTS)}"
    )
    parser.add_argument("--clips", type=Path, default=FOLDER / "clips", help="videos from which heads are cropped")
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
    observed = observe(plan)
    with (options.out / "observed.pickle").open("wb") as file:
        pickle.dump(observed, file)
    figures = report(observed)
    (options.out / "report.json").write_text(json.dumps(figures, indent=1))
    (options.out / "report.md").write_text(summary(figures))
    plot(observed, options.out / "report.png")
    print(summary(figures))


if __name__ == "__main__":
    main()
