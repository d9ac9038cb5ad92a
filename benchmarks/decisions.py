"""What a look of the auto-tuner takes: both policies on histories of 100 to 10,000 steps.

    python benchmarks/decisions.py

Printed: milliseconds of CPU time, the median of rounds, and how often the fits evaluated their curves, which
is ``curves.EVALUATIONS`` a fit at most. Looks happen beside the steps, in a thread.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from measure import take_turns

from mlless.autotuner.curves import EVALUATIONS, fit_local, fit_reference
from mlless.autotuner.decision import Contribution, Goal, Question
from mlless.autotuner.economy import Economy
from mlless.autotuner.published import Published


def main() -> None:
    """Print the table."""
    economy, published = Economy(function=3.4e-5, servers=9e-5), Published()
    print(f"{'steps':>6} {'published':>10} {'economy':>10}   evaluations, of at most {EVALUATIONS} a fit")
    for steps in (100, 1_000, 10_000):
        question = _question(steps)
        times = np.arange(1.0, steps + 1)
        half = steps // 2
        fits = (
            fit_reference(times, question.losses),
            fit_local(times[half:] - half, question.losses[half:]),
        )
        seconds = take_turns(
            {
                "published": lambda _, q=question: published.decide(q),
                "economy": lambda _, q=question: economy.decide(q),
            },
            9,
            time.process_time,
        )
        taken = {name: 1e3 * statistics.median(spent) for name, spent in seconds.items()}
        spent = ", ".join(f"{fit.form} {fit.evaluations}" for fit in fits if fit)
        print(f"{steps:6} {taken['published']:7.1f} ms {taken['economy']:7.1f} ms   {spent}")


def _question(steps: int) -> Question:
    """Return a question about noisy losses of the published form, half of them after one has left."""
    times = np.arange(1.0, steps + 1)
    members = np.where(times <= steps // 2, 10.0, 9.0)
    noise = 0.01 * np.random.default_rng(0).normal(size=steps)
    return Question(
        step=steps - 1,
        losses=1 / (0.05 * times**0.58 + 1.58) + 0.49 + noise,
        members=members,
        seconds=1 / (4.438 - 0.2425 * members),
        settled=(times - 1) % (steps // 2),
        heldout=(),
        workers=tuple(Contribution(worker, 1.0, 1000) for worker in range(9)),
        floor=1,
        goal=Goal(batches=1_000_000),
        knee=20,
    )


if __name__ == "__main__":
    main()
