"""Log loss of logistic regression on Criteo's own layout, with the recommended features and with min-max.

    python benchmarks/criteo_features.py PATH/TO/rows.tsv.gz [--splits 5] [--workers 4] [--seed 0]

PATH is a file of Criteo's layout, whose rows are split at random into as many parts as there are
splits. Each split tests on one of them, so that every row is tested on once: which rows happen to be
tested on moves the mean over five independent splits by +-.003. The other rows are partitioned and
trained on with all defaults (a tenth of them stops the job), and the model is evaluated on the test
rows in their raw form. Nothing of the file is kept.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
from pathlib import Path

import numpy as np

import mlless


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    data = asked.path.read_bytes()
    lines = (gzip.decompress(data) if asked.path.suffix == ".gz" else data).splitlines(keepends=True)
    parts = np.array_split(np.random.default_rng(asked.seed).permutation(len(lines)), asked.splits)
    tested = len(parts[0])
    print(
        f"{len(lines) - tested:,} rows to train on, {tested:,} to test on; {asked.workers} workers, defaults"
    )
    figures: dict[str, list[dict[str, float]]] = {"standard": [], "minmax": []}
    for split in range(asked.splits):
        train = np.concatenate([part for other, part in enumerate(parts) if other != split])
        for scaling, results in figures.items():
            results.append(figure(lines, train, parts[split], scaling, asked.workers))
            result = results[-1]
            print(f"split {split}  {scaling:9} log loss {result['log_loss']:.4f}, auc {result['auc']:.4f}")
    for scaling, results in figures.items():
        loss, auc = (statistics.mean(result[name] for result in results) for name in ("log_loss", "auc"))
        print(f"mean     {scaling:9} log loss {loss:.4f}, auc {auc:.4f}")


def figure(
    lines: list[bytes], train: np.ndarray, test: np.ndarray, scaling: str, workers: int
) -> dict[str, float]:
    """Return the metrics on the lines ``test`` of a model trained on the lines ``train``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, rows in (("test.tsv", test), ("train.tsv", train)):
            (folder / file).write_bytes(b"".join(lines[row] for row in rows))
        mlless.partition(folder / "train.tsv", folder / "data", format="criteo", numeric=scaling)
        run = mlless.train(folder / "data", out=folder / "run", workers=workers, verbose=False)
        return run.model().evaluate_raw(folder / "test.tsv")


if __name__ == "__main__":
    main()
