"""python -m bench [--scale small|full] [queue|payments|outbox ...]"""

import argparse
import os
import sys

from bench import outbox, payments, queue
from bench.databases import Databases, Failed
from bench.figures import print_table

# One module each; what they have in common is in `databases`, `figures` and `together`.
BENCHES = {"queue": queue.figures, "payments": payments.figures, "outbox": outbox.figures}

# What shows within a minute that the harness works.
SMALL = ("queue",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("benches", nargs="*", metavar="|".join(BENCHES))
    asked = parser.parse_args()
    if unknown := set(asked.benches) - set(BENCHES):
        parser.error(f"There is no bench {', '.join(sorted(unknown))}.")
    databases = Databases(os.environ["DATABASE_URL"])
    try:
        figures = [
            figure
            for name in asked.benches or (SMALL if asked.scale == "small" else BENCHES)
            for figure in BENCHES[name](databases, is_small=asked.scale == "small")
        ]
    except Failed as problem:
        print(problem, file=sys.stderr)
        return 1
    print_table(figures)
    return int(any(figure.verdict() == "BELOW" for figure in figures) and asked.scale == "full")


if __name__ == "__main__":
    sys.exit(main())
