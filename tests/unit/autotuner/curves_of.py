"""Losses as jobs have them, and questions about them."""

from __future__ import annotations

import numpy as np

from mlless.autotuner.decision import Contribution, Floats, Goal, Question
from mlless.job import Target


def falling(
    steps: int, *, to: float = 0.5, exponent: float = 1.0, noise: float = 0.0, seed: int = 0
) -> Floats:
    """Return losses from about 1.2 + ``to`` down towards ``to``."""
    t = np.arange(1.0, steps + 1)
    random = np.random.default_rng(seed)
    return 1 / (0.05 * t**exponent + 0.8) + to + noise * random.normal(size=steps)


def contributions(count: int) -> tuple[Contribution, ...]:
    """Return those of workers, of which the last publishes the least."""
    return tuple(Contribution(worker, 1.0, 1000 - worker) for worker in range(count))


def question(
    losses: Floats,
    *,
    members: Floats | None = None,
    seconds: Floats | None = None,
    floor: int = 1,
    batches: int = 100_000,
    target: float | None = None,
    budget: float | None = None,
    cost: float | None = None,
) -> Question:
    """Return a question about a job of ten workers, unless told otherwise, with a step a second."""
    members = np.full(len(losses), 10.0) if members is None else members
    settled = np.zeros(len(losses))
    for n in range(1, len(losses)):
        settled[n] = settled[n - 1] + 1 if members[n] == members[n - 1] else 0
    return Question(
        step=len(losses) - 1,
        losses=losses,
        members=members,
        seconds=np.ones(len(losses)) if seconds is None else seconds,
        settled=settled,
        heldout=(),
        workers=contributions(int(members[-1])) if len(members) else contributions(10),
        floor=floor,
        goal=Goal(
            batches=batches,
            target=None if target is None else Target(metric="train_loss", value=target),
            budget=budget,
        ),
        cost=cost,
    )
