"""What checkpoints cost: the same job with and without them, in turns.

    python benchmarks/checkpoints.py [DATASET] [--pairs 10] [--workers 4] [--epochs 40]
        [--out s3://BUCKET/PREFIX] [--every SECONDS]

Without DATASET ratings in the shape of ML-1M are made up. Each turn is a process of its own. Its run goes
into a folder, or with ``--out`` into an object store, which the environment describes. ``--every`` is
``--checkpoint-every``. A turn without checkpoints trains to the same model: its rhythm says that none is due.

Printed are medians of wall and CPU seconds, of training alone and of the whole job. Then comes the mean of
the ratios with / without, with its 95 % interval. Last is what the summary says of the checkpoints: how many,
the share of a worker's time, bytes and requests.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from shapes import ML_1M, partitioned

from mlless.records import Checkpoints

_JOB = """
import sys, mlless, msgspec
from mlless.mark import Rhythm
dataset, out, workers, epochs, every, side = sys.argv[1:]
if side == "without":
    Rhythm.is_due = lambda self, plan, now: False
run = mlless.train(dataset, out=out, overwrite=True, verbose=False, workers=int(workers), epochs=int(epochs),
    checkpoint_every=float(every) if every else None)
one = run.summary
print(msgspec.json.encode([[one.wall_seconds - one.startup_seconds, one.wall_seconds,
    one.cpu_seconds - one.startup_cpu_seconds, one.cpu_seconds], one.checkpoints, one.heldout]).decode())
"""
_NAMES = ("training, wall", "job, wall", "training, CPU", "job, CPU")
Turn = tuple[list[float], Checkpoints, dict[str, float]]


def _run(side: str, dataset: str, out: str, asked: argparse.Namespace) -> Turn:
    every = "" if asked.every is None else str(asked.every)
    done = subprocess.run(
        [sys.executable, "-c", _JOB, dataset, out, str(asked.workers), str(asked.epochs), every, side],
        capture_output=True,
        text=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Turn)


def main() -> None:
    """Run the pairs and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out")
    parser.add_argument("--every", type=float)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        dataset = asked.dataset
        if dataset is None:
            dataset = str(partitioned(ML_1M, 1_000_209, place))
        out = asked.out or str(place / "run")
        sides: dict[str, list[Turn]] = {"without": [], "with": []}
        for pair in range(asked.pairs + 1):
            for side in ("without", "with") if pair % 2 else ("with", "without"):
                turn = _run(side, dataset, out, asked)
                if pair:  # the first one warms up
                    sides[side].append(turn)
    for number, name in enumerate(_NAMES):
        before, after = ([turn[0][number] for turn in sides[side]] for side in ("without", "with"))
        ratios = [math.log(b / a) for a, b in zip(before, after, strict=True)]
        mean = statistics.fmean(ratios)
        spread = 2.1 * statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.inf
        low, middle, high = (math.exp(value) for value in (mean - spread, mean, mean + spread))
        print(
            f"{name:15} without {statistics.median(before):7.3f} s  with {statistics.median(after):7.3f} s  "
            f"ratio {middle:.3f} ({low:.3f} to {high:.3f})"
        )
    found = [turn[1] for turn in sides["with"]]
    middles = [
        statistics.median(getattr(one, name) for one in found)
        for name in ("count", "share", "bytes", "writes")
    ]
    print(
        f"checkpoints     {middles[0]:g}, {middles[1]:.2%} of a worker's time, {middles[2] / 1e6:.1f} MB "
        f"and {middles[3]:g} requests into the run's place"
    )
    assert not any(turn[1].count for turn in sides["without"]), "some were made all the same"
    assert len({tuple(turn[2].items()) for both in sides.values() for turn in both}) == 1, "other models"


if __name__ == "__main__":
    main()
