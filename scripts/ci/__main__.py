"""CI of this repository.

    python3 scripts/ci run                 the core stages, then at most one stale heavy stage
    python3 scripts/ci status              which heavy stages are fresh, without running any
    python3 scripts/ci record STAGE...     runs heavy stages, writes records of those that pass

`docs/ci.md` explains the stages and the records.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

import pipeline
import plan
import recording
from stages import STAGES

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    begin = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="scripts/ci",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run")
    commands.add_parser("status")
    names = [stage.name for stage in STAGES.heavy]
    commands.add_parser("record").add_argument("stage", nargs="+", choices=names)
    arguments = parser.parse_args()
    # A stop of CI reaches the stage that runs, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "run":
            return pipeline.run(ROOT, STAGES, begin)
        if arguments.command == "record":
            return recording.record(ROOT, STAGES, arguments.stage)
        verdicts = pipeline.judge_all(ROOT, STAGES)
        print(plan.table([plan.waiting(one, set()) for one in verdicts]))
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
