"""What it costs to be ready for losses when nothing is lost: two source trees, run in turns.

    python benchmarks/survival.py --before TREE [--after TREE] [--pairs 20] [--workers 4]

TREE is a checkout whose package is built in place (its ``src``). Both train the published ML-1M job, as
``pytorch.py`` does: 20 factors, mini-batches of 6,250, Nesterov's momentum of 0.8, BSP. Each run is a
process of its own. Printed are the medians of wall and CPU seconds, of training alone and of the whole job,
and the mean of the ratios after / before with its 95 % interval. The same tree twice tells the noise.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from shapes import ML_1M, partitioned

import mlless

_JOB = """
import sys, mlless, msgspec
run = mlless.train(sys.argv[1], out=sys.argv[2], overwrite=True, verbose=False, workers=int(sys.argv[3]),
    optimizer="nesterov", learning_rate=8.0, l2=0.0, batch_size=6250, sync="bsp", epochs=int(sys.argv[4]))
one = run.summary
print(msgspec.json.encode([one.wall_seconds - one.startup_seconds, one.wall_seconds,
    one.cpu_seconds - one.startup_cpu_seconds, one.cpu_seconds]).decode())
"""
_NAMES = ("training, wall", "job, wall", "training, CPU", "job, CPU")


def _run(tree: Path, dataset: Path, out: Path, workers: int, epochs: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _JOB, str(dataset), str(out), str(workers), str(epochs)],
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=list[float])


def main() -> None:
    """Run the pairs and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=Path(mlless.__file__).parents[2])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = partitioned(ML_1M, 1_000_209, place)
        sides: dict[str, list[list[float]]] = {"before": [], "after": []}
        for pair in range(asked.pairs + 1):
            order = ("before", "after") if pair % 2 else ("after", "before")
            for side in order:
                tree: Path = getattr(asked, side)
                times = _run(tree, data, place / "run", asked.workers, asked.epochs)
                if pair:  # the first one warms up
                    sides[side].append(times)
    for number, name in enumerate(_NAMES):
        before, after = ([times[number] for times in sides[side]] for side in ("before", "after"))
        ratios = [math.log(b / a) for a, b in zip(before, after, strict=True)]
        mean, spread = statistics.fmean(ratios), 2.1 * statistics.stdev(ratios) / math.sqrt(len(ratios))
        low, middle, high = (math.exp(value) for value in (mean - spread, mean, mean + spread))
        print(
            f"{name:15} before {statistics.median(before):6.3f} s  after {statistics.median(after):6.3f} s  "
            f"ratio {middle:.3f} ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
