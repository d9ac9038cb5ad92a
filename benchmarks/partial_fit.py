"""Learning a data set of ratings in parts, with new users in each, against one fit of the whole.

    python benchmarks/partial_fit.py ml-1m.parquet --parts 10 --seeds 3

A tenth of the ratings is set aside and scored at the end. ``users``: every user comes in one part, with
all ratings. ``mixed``: half of a user's ratings come in the part in which the user is new, the others
in this or any later part.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import mlless
from mlless.data.readers import open_source, read_ratings

Ids = NDArray[np.int64]


def load(path: str) -> tuple[Ids, NDArray[np.float32]]:
    """Return pairs and ratings of a file that ``mlless partition`` takes."""
    chunks = [chunk.rows for chunk in read_ratings(open_source(path))]
    pairs = np.column_stack([np.concatenate([getattr(c, n) for c in chunks]) for n in ("users", "items")])
    return pairs, np.concatenate([c.ratings for c in chunks if c.ratings is not None])


def cuts(pairs: Ids, parts: int, random: np.random.Generator) -> Iterator[tuple[str, Ids]]:
    """Yield the ways of cutting ratings into parts: a name, and the part of each rating."""
    _, users = np.unique(pairs[:, 0], return_inverse=True)
    arrival = random.integers(0, parts, users.max() + 1)[users]
    yield "users", arrival
    later = random.integers(arrival, parts)
    yield "mixed", np.where(random.random(len(users)) < 0.5, arrival, later)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    wanted = parser.parse_args()
    pairs, ratings = load(wanted.source)
    print(f"{len(ratings)} ratings, {wanted.parts} parts\nseed  way     rmse    behind fit  seconds")
    for seed in range(wanted.seeds):
        random = np.random.default_rng(seed)
        held = random.random(len(ratings)) < 0.1

        def rmse(model: mlless.MatrixFactorization, held: NDArray[np.bool_] = held) -> float:
            return float(np.sqrt(np.mean((model.predict(pairs[held]) - ratings[held]) ** 2)))

        start = time.perf_counter()
        whole = rmse(mlless.MatrixFactorization(random_state=seed).fit(pairs[~held], ratings[~held]))
        print(f"{seed:4}  fit    {whole:.4f}              {time.perf_counter() - start:7.1f}", flush=True)
        for name, part in cuts(pairs, wanted.parts, random):
            start, model = time.perf_counter(), mlless.MatrixFactorization(random_state=seed)
            for number in range(wanted.parts):
                rows = (part == number) & ~held
                model.partial_fit(pairs[rows], ratings[rows])
            found, seconds = rmse(model), time.perf_counter() - start
            print(f"{seed:4}  {name}  {found:.4f}  {found - whole:+.4f}     {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
