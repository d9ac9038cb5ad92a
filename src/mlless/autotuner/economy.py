"""Our own rule: keep the number of workers at which what is left to learn costs the least.

What is left is counted in units of progress: a step of p workers makes p^GAMMA of them. The tail of the
learning curve against progress (``tail``) says how many there are to go to the target. Then

    steps(p) = left / p^GAMMA,    seconds(p) = steps(p) / speed(p)
    dollars(p) = seconds(p) * (p * function + servers) + steps(p) * traffic * bytes * (p / present)^2

with the prices of a second and of a byte of updates, which all read of all, and the speed in steps a second
as it was seen (``steptime``). Where servers cost more than functions, many workers share them for a short
time; where functions do, few workers lose less of their time to one another. A job with a target and a
budget takes the quickest p that can be paid for.

Workers can only leave, so a wrong step cannot be taken back. Hence: no one leaves before the knee, one
leaves first, as a probe, if that cannot cost much, and after it no further down is looked than
twice the range that has been seen; the gain must be worth it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.autotuner.decision import Decision, FittedCurve, Floats, Question, traced
from mlless.autotuner.knee import relative_knee
from mlless.autotuner.leaver import choose
from mlless.autotuner.smoothing import smooth
from mlless.autotuner.steptime import Speed, fit_speed
from mlless.autotuner.tail import Tail, fit_tail

# Measured: steps to a held-out RMSE of 0.86 on ML-1M (batches of 6,250) fall from 553 at one worker to 138,
# 73 and 30 at 4, 8 and 24: exponents of 1.00, 0.97 and 0.92.
GAMMA = 0.95
INTERVAL = 10  # steps between two looks
PROBE = 0.03  # share of the remaining dollars that the first to leave may cost, if the speed stays
GAIN = 0.02  # share of the remaining dollars that must be saved
_TRACED = 24  # points of the curve in a decision's record
_WORTH = 3 * INTERVAL  # steps to go, below which nothing is worth a change


@dataclass(frozen=True)
class Economy:
    """Prices in dollars: of a second of one function and of all servers, and of a byte of updates."""

    function: float
    servers: float
    traffic: float = 0.0

    def due(self, *, steps: int, seconds: float) -> bool:
        """Return whether enough steps have gone by."""
        return steps >= INTERVAL

    @np.errstate(all="ignore")  # whatever losses are like, numbers are looked at before they count
    def decide(self, question: Question) -> Decision:
        """Return who leaves, so that the rest of the job costs the least."""
        present = len(question.workers)
        if question.spare == 0:
            return question.stay("no worker can be spared")
        knee = relative_knee(question.losses) if question.knee is None else question.knee
        if knee is None:
            return question.stay("before the knee", workers=present)
        progress = np.cumsum(question.members**GAMMA)
        tail = fit_tail(progress, question.losses)
        members, seconds, settled = question.members, question.seconds, question.settled
        speed = fit_speed(members, seconds, settled, merging=question.merging)
        if speed is None or members[-1] != present or speed.least != present:
            return question.stay("too little to tell since the last one left", knee=knee)
        if tail is None:
            return question.stay("the loss does not fall", knee=knee)
        left, predicted = _left(question, tail, progress)
        numbers = {
            "knee": knee,
            "left": left,
            "predicted": float(predicted),
            "tail_level": tail.level,
            "tail_slope": tail.slope,
            "error": tail.error,
        }
        steps, curve = left / present**GAMMA, _traced(tail, progress, present)
        if steps < _WORTH:
            return question.stay("the end is near", curve, steps_left=steps, **numbers)
        return msgspec.structs.replace(self._compare(question, speed, left, numbers), curves=(curve,))

    def _compare(self, question: Question, speed: Speed, left: float, numbers: dict[str, float]) -> Decision:
        present = len(question.workers)
        probe = speed.least == speed.most
        lowest = present - 1 if probe else speed.least - (speed.most - speed.least)
        counts = np.arange(max(question.floor, lowest, 1), present + 1)
        steps = left / counts**GAMMA
        time = steps / np.array([speed.at(float(count)) for count in counts])
        money = time * (counts * self.function + self.servers)
        money += steps * self.traffic * question.exchanged * (counts / present) ** 2
        affordable = _affordable(question, money)
        if probe:
            best = len(counts) - 1 if affordable[-1] else 0
        elif affordable.any():
            best = int(np.argmin(np.where(affordable, time, np.inf)))
        else:
            best = int(np.argmin(money))
        gain = 1 - money[best] / money[-1]
        numbers = {
            **numbers,
            "workers": float(counts[best]),
            "dollars": float(money[best]),
            "dollars_if_all_stay": float(money[-1]),
            "seconds": float(time[best]),
            "seconds_if_all_stay": float(time[-1]),
            "speed_base": speed.base,
            "speed_slope": speed.slope,
        }
        count = present - int(counts[best])
        if count == 0 and affordable[-1]:
            return question.stay(f"{present} workers are the quickest that can be paid for", **numbers)
        if probe and gain < -PROBE:
            return question.stay("fewer workers would cost more unless they were much quicker", **numbers)
        if not probe and (count == 0 or gain < GAIN):
            return question.stay(f"{present} workers are the cheapest", **numbers)
        leavers, why = choose(question.workers, count)
        reason = (
            "to see what one less does" if probe else f"{counts[best]} workers save {gain:.0%} of the rest"
        )
        return question.leave(leavers, f"{reason}; {why}", **numbers)


def _traced(tail: Tail, progress: Floats, present: int) -> FittedCurve:
    """Return the tail over the losses it was fitted to, and half as far again if no one leaves."""
    count = len(progress)
    steps = np.linspace(count // 2 + 1, count + count // 4, _TRACED)
    ahead = progress[-1] + (steps - count) * present**GAMMA
    units = np.where(steps <= count, np.interp(steps, np.arange(1, count + 1), progress), ahead)
    return traced("tail", steps, tail.level + tail.slope * np.log(units))


def _affordable(question: Question, money: Floats) -> NDArray[np.bool_]:
    """Return what comes to the target within the budget: nothing, where there is none of the two."""
    goal = question.goal
    if goal.budget is None or goal.target is None or question.cost is None:
        return np.zeros(len(money), bool)
    return money <= goal.budget - question.cost


def _left(question: Question, tail: Tail, progress: Floats) -> tuple[float, bool]:
    """Return the units of progress to go, and whether the tail says so: else it is all that is allowed."""
    goal, done = question.goal, float(progress[-1])
    taken = float(np.sum(question.members))
    rest = max(goal.batches - taken, 0.0) * len(question.workers) ** (GAMMA - 1)
    if goal.target is None:
        return rest, False
    train_loss = goal.target.metric == "train_loss"
    target = goal.target.value if train_loss else _as_loss(question, goal.lower(goal.target.value))
    if target is None:
        return rest, False
    return min(max(tail.progress_at(target) - done, 0.0), rest), True


def _as_loss(question: Question, target: float) -> float | None:
    """Return the training loss at which the held-out metric will have come to ``target``.

    By the line through the last three evaluations; the first one, of the untrained model, tells nothing. On
    ML-1M that was up to a third too soon, for the held-out metric comes to rest before the training loss.
    """
    known = [(index, value) for index, value in question.heldout if 0 < index < len(question.losses)][-3:]
    if len(known) < 2:
        return None
    indices, values = zip(*known, strict=True)
    losses = smooth(question.losses, 10)[list(indices)]
    spread = losses - losses.mean()
    variance = float(np.sum(spread**2))
    slope = float(np.sum(spread * np.array(values))) / variance if variance > 0 else 0.0
    if not slope > 0:
        return None
    return float(losses.mean() + (target - np.mean(values)) / slope)
