"""Our own rule: keep the number of workers at which what is left to learn costs the least.

What is left is counted in units of progress: a step of p workers makes p^GAMMA of them. The tail of the
learning curve against progress (``tail``) says how many there are to go to the target. Then

    steps(p) = left / p^GAMMA,    seconds(p) = steps(p) / speed(p)
    dollars(p) = seconds(p) * (p * function + servers) + steps(p) * traffic * bytes * (p / present)^growth

with the prices of a second and of a byte of updates, and the speed in steps a second
as it was seen (``steptime``). Where servers cost more than functions, many workers share them for a short
time; where functions do, few workers lose less of their time to one another. A job with a target and a
budget takes the quickest p that can be paid for, and one with a limit of time none that may be too late.

Workers can only leave, so a wrong step cannot be taken back. So these rules hold:

- No worker leaves before the knee.
- The first one leaves as a probe, if that cannot cost much.
- After that, only numbers of workers within twice the range that was seen are considered.
- The gain must be worth it.
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
# What is left to a target is forecast too small. On ML-1M with ten workers, to a held-out RMSE of 0.848 at
# step 303, it was 1 to 2.9 times as much. Which number of workers is the cheapest does not depend on it;
# whether one can be paid for, or is in time, does.
DOUBT = 3.0
INTERVAL = 10  # steps between two looks
PROBE = 0.03  # share of the remaining dollars that the first to leave may cost, if the speed stays
GAIN = 0.02  # share of the remaining dollars that must be saved
_TRACED = 24  # points of the curve in a decision's record
_WORTH = 3 * INTERVAL  # steps to go, below which nothing is worth a change


@dataclass(frozen=True)
class Economy:
    """Prices in dollars: of a second of one function and of all servers, and of a byte of updates.

    ``growth`` is the power of the workers with which these bytes grow: 2 where all read of all, 1 where one
    merges for all.
    """

    function: float
    servers: float
    traffic: float = 0.0
    growth: int = 2

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
            return question.stay("too little has been seen of this number of workers", knee=knee)
        if tail is None:
            return question.stay("the loss does not fall", knee=knee)
        work, curve = _work(question, tail, progress), _traced(tail, progress, present)
        numbers = {
            "knee": knee,
            "left": work.left,
            "doubt": work.doubt,
            "tail_level": tail.level,
            "tail_slope": tail.slope,
            "error": tail.error,
        }
        steps = work.doubt * float(work.steps(np.array(float(present))))
        if steps < _WORTH:
            return question.stay("the end is near", curve, steps_left=steps, **numbers)
        if work.unknown and (question.goal.budget is not None or question.goal.max_time is not None):
            return question.stay("how far the target is cannot be told yet", curve, **numbers)
        return msgspec.structs.replace(self._compare(question, speed, work, numbers), curves=(curve,))

    def _compare(self, question: Question, speed: Speed, work: _Work, numbers: dict[str, float]) -> Decision:
        present = len(question.workers)
        probe = speed.least == speed.most
        lowest = present - 1 if probe else speed.least - (speed.most - speed.least)
        counts = np.arange(max(question.floor, lowest, 1), present + 1.0)
        steps = work.steps(counts)
        time = steps / np.array([speed.at(float(count)) for count in counts])
        money = time * (counts * self.function + self.servers)
        money += steps * self.traffic * question.exchanged * (counts / present) ** self.growth
        in_time, payable = _within(question, work.doubt * time, work.doubt * money)
        if not money[-1] > 0:
            return question.stay("nothing costs anything", **numbers)
        if payable.any():
            best = int(np.argmin(np.where(payable, time, np.inf)))
        elif in_time.any():
            best = 0 if probe and in_time[0] else int(np.argmin(np.where(in_time, money, np.inf)))
        else:
            best = len(counts) - 1
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
        if count == 0 and payable[-1]:
            why = f"no other number of workers than {present} is quicker and can be paid for"
            return question.stay(why, **numbers)
        if not in_time[:-1].any() and len(counts) > 1:
            return question.stay("fewer workers may be too late", **numbers)
        if probe and gain < -PROBE:
            return question.stay("fewer workers would cost more unless they were much quicker", **numbers)
        if not probe and count == 0:
            return question.stay(f"no other number of workers than {present} is cheaper", **numbers)
        if not probe and gain < GAIN and not payable.any():
            return question.stay(f"going down to {counts[best]:.0f} would save too little", **numbers)
        leavers, why = choose(question.workers, count)
        reason = (
            "to see what one less does"
            if probe
            else f"going down to {counts[best]:.0f} saves {gain:.0%} of the rest"
        )
        return question.leave(leavers, f"{reason}; {why}", **numbers)


def _traced(tail: Tail, progress: Floats, present: int) -> FittedCurve:
    """Return the tail over the losses it was fitted to, and half as far again if no one leaves."""
    count = len(progress)
    steps = np.linspace(count // 2 + 1, count + count // 4, _TRACED)
    ahead = progress[-1] + (steps - count) * present**GAMMA
    units = np.where(steps <= count, np.interp(steps, np.arange(1, count + 1), progress), ahead)
    return traced("tail", steps, tail.level + tail.slope * np.log(units))


def _within(question: Question, time: Floats, money: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what is done in time, and of that what can be paid for if there are a target and a budget."""
    goal = question.goal
    in_time = time <= (np.inf if goal.max_time is None else goal.max_time - question.time)
    if goal.budget is None or goal.target is None or question.cost is None:
        return in_time, np.zeros(len(money), bool)
    return in_time, in_time & (money <= goal.budget - question.cost)


@dataclass(frozen=True)
class _Work:
    """What is left to do: a step of p workers does p^``gamma`` of it. It may be ``doubt`` times as much."""

    left: float
    gamma: float
    doubt: float = 1.0
    unknown: bool = False

    def steps(self, workers: Floats) -> Floats:
        """Return the steps that so many workers take for it."""
        return self.left / workers**self.gamma


def _work(question: Question, tail: Tail, progress: Floats) -> _Work:
    """Return the way to the target by the tail, and all that is allowed without one or if it does not say."""
    goal = question.goal
    batches = max(goal.batches - float(np.sum(question.members)), 0.0)
    if goal.target is None:
        return _Work(batches, 1.0)
    rest = batches * len(question.workers) ** (GAMMA - 1)
    train_loss = goal.target.metric == "train_loss"
    target = goal.target.value if train_loss else _as_loss(question, goal.lower(goal.target.value))
    if target is None:
        return _Work(rest, GAMMA, unknown=True)
    return _Work(min(max(tail.progress_at(target) - float(progress[-1]), 0.0), rest), GAMMA, DOUBT)


def _as_loss(question: Question, target: float) -> float | None:
    """Return the training loss at which the held-out metric will reach ``target``.

    It follows the line through the last three evaluations. The first evaluation, of the untrained model, is
    left out. The answer is too early, because the held-out metric settles before the training loss does: see
    DOUBT.
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
