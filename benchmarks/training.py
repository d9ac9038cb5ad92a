"""Training with the defaults, from 1 worker to 24, in BSP and ISP.

    python benchmarks/training.py [DATASET] [--workers 1,2,4,8,24] [--epochs N]

DATASET is a folder that ``mlless partition`` made; without one, ratings in the shape of ML-1M are generated
and partitioned. Printed for every run: the held-out metrics of the model, steps and epochs, and wall and CPU
seconds of training (start-up left out). Then the mega-bytes published and read by peers, and the share of
published entries in those of BSP's run beside it. Last comes where the mean step of a worker goes, in
milliseconds. Workers beyond the machine's cores share them: read wall seconds with that in mind.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from shapes import ML_1M, partitioned

import mlless
from mlless.records import StepTimes

NAMES = StepTimes.__struct_fields__


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--workers", default="1,2,4,8,24")
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlless-benchmark-") as folder:
        dataset = options.dataset or partitioned(ML_1M, 1_000_209, Path(folder))
        kind = mlless.open_dataset(dataset).manifest.kind
        print(
            f"{'P':>3} {'sync':4} {'held out':28} {'steps':>6} {'epochs':>6} {'wall s':>7} {'CPU s':>7} "
            f"{'MB out':>8} {'MB in':>8} {'share':>6}   " + " ".join(f"{name:>8}" for name in NAMES)
        )
        for workers in map(int, options.workers.split(",")):
            dense = None
            for sync in ("bsp", "isp"):
                dense = _train(dataset, kind, workers, sync, options.epochs, Path(folder) / "run", dense)


def _train(
    dataset: Path, kind: str, workers: int, sync: str, epochs: int | None, out: Path, dense: float | None
) -> float:
    """Print a run's line; return the entries it published a step."""
    run = mlless.train(
        dataset,
        model="mf" if kind == "ratings" else "lr",
        out=out,
        overwrite=True,
        verbose=False,
        workers=workers,
        sync="bsp" if sync == "bsp" else "isp",
        epochs=epochs,
    )
    summary, history = run.summary, run.history()
    heldout = ", ".join(f"{name} {value:.4f}" for name, value in summary.heldout.items())
    # The closing flush publishes whole residuals and would blur the share.
    training = [record for record in history if record.samples]
    published = sum(record.entries for record in training) / len(training)
    times = (sum(getattr(r.times, name) for r in training) / len(training) * 1e3 for name in NAMES)
    print(
        f"{workers:3} {sync:4} {heldout:28} {summary.steps:6} {summary.epochs:6.1f} "
        f"{history[-1].time - summary.startup_seconds:7.2f} "
        f"{summary.cpu_seconds - summary.startup_cpu_seconds:7.2f} "
        f"{summary.bytes_published / 1e6:8.1f} {summary.bytes_read / 1e6:8.1f} "
        f"{published / (dense or published):6.0%}   " + " ".join(f"{ms:8.3f}" for ms in times),
        flush=True,
    )
    return published


if __name__ == "__main__":
    main()
