"""The arguments of `scripts/check_gpu`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from swarmrt.check_gpu.directing import direct
from swarmrt.check_gpu.plan import CHECKS
from swarmrt.check_gpu.wheels import collect


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/check_gpu",
        description="Find out what a GPU makes of swarmrt. Without one, check what a CPU can.",
        epilog="The last line is one JSON object. Exit code 0: checks passed, and none failed.",
    )
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="packages to use from there")
    parser.add_argument("--seconds", type=float, default=420, help="all that it may take")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep report and outputs there")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="CHECK",
        choices=[check.name for check in CHECKS],
        help="these checks: " + ", ".join(check.name for check in CHECKS),
    )
    parser.add_argument(
        "--collect",
        type=Path,
        metavar="DIR",
        help="instead, where there is a network: put what such a machine lacks there, as wheels",
    )
    arguments = parser.parse_args()
    if arguments.collect is not None:
        print(collect(arguments.collect))
        return 0
    try:
        return direct(arguments.wheels, arguments.seconds, arguments.out, arguments.only)
    except KeyboardInterrupt:
        print("check_gpu: interrupted; nothing is left running", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
