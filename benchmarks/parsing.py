"""How fast raw ratings are read, against pyarrow's CSV reader alone on the same file and columns.

    python benchmarks/parsing.py [--rows 20000000]

The files are made up in the shape of MovieLens-20M: plain, quoted, and with ids that are text.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv

from mlless.data.readers import open_source, read_ratings

NAMES = ["userId", "movieId", "rating", "timestamp"]
CHUNK = 1_000_000
TIMES = 3


def write(path: Path, rows: int, *, quoting: str, text: bool) -> None:
    random = np.random.default_rng(0)
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style=quoting)
    with path.open("wb") as file:
        file.write(
            (",".join(f'"{name}"' if quoting == "all_valid" else name for name in NAMES) + "\n").encode()
        )
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            users = np.sort(random.integers(1, 138_493, count)) + start // CHUNK
            items = (random.zipf(1.2, count) % 27_278 + 1).astype(np.int64)
            columns: list[object] = [
                users,
                np.char.add("m", items.astype(str)) if text else items,
                random.integers(1, 11, count) / 2,
                random.integers(789_652_009, 1_427_784_002, count),
            ]
            pyarrow.csv.write_csv(pyarrow.table(columns, NAMES), file, options)


def alone(path: Path, *, text: bool) -> None:
    """Read the columns as pyarrow streams them."""
    kinds = {"userId": pyarrow.int64(), "movieId": pyarrow.string() if text else pyarrow.int64()}
    options = pyarrow.csv.ConvertOptions(
        include_columns=NAMES[:3], column_types={**kinds, "rating": pyarrow.float64()}
    )
    with pyarrow.csv.open_csv(path, convert_options=options) as reader:
        for _ in reader:
            pass


def ours(path: Path) -> None:
    for _ in read_ratings(open_source(path)):
        pass


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        for name, quoting, text in (
            ("plain", "none", False),
            ("quoted", "all_valid", False),
            ("text ids", "none", True),
        ):
            path = Path(folder, "ratings.csv")
            write(path, rows, quoting=quoting, text=text)
            pairs = [
                (seconds(lambda: alone(path, text=text)), seconds(lambda: ours(path)))  # noqa: B023
                for _ in range(TIMES)
            ]
            theirs, mine = (min(times) for times in zip(*pairs, strict=True))
            print(
                f"{name:9} {path.stat().st_size / 1e6:6.0f} MB: pyarrow alone {theirs:6.2f} s, "
                f"ours {mine:6.2f} s, ratio of speeds {theirs / mine:.2f}"
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
