"""How many functions an epoch has, and how large they are: what a scheduler sees, may do, and is told.

The environment of SIREN (Wang, Niu and Li, INFOCOM 2019) as it is here. The *state* is what is known before
an epoch. The *action* is the number and the memory of its functions. The *reward* of an epoch is the time it
took, below zero, in units of what one function would have taken for the first one. At the end comes one
more: ``REACHED`` if the target was, its negative if not. Whatever a policy wants, the budget rule has the
last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.billing.meter import Meter, Usage
from mlless.billing.tariff import Tariff
from mlless.losses import TRIES

REACHED = 10.0
GRACE = 1.0  # seconds for functions to be ended when their time is over
_SHORTEST = 0.5  # seconds that are worth an epoch
_SLACK = 0.01  # of a budget, for looks at the run that nobody foresees
Wide = NDArray[np.float64]


class Action(msgspec.Struct, frozen=True):
    """So many functions for an epoch, each of so many MB."""

    workers: int
    memory: int


class State(NamedTuple):
    """What is known before an epoch, each about 0 to 1.

    ``done`` is the share of the epochs, ``loss`` the held-out or training loss against the first one,
    ``left`` the share of the budget (1 without one). ``workers`` are the functions of the epoch before, as a
    share of the most there may be. ``seconds`` are those of the epoch before against those of the first.
    """

    done: float
    loss: float
    left: float
    workers: float
    seconds: float


class Taken(NamedTuple):
    """An epoch, as a policy learns from it: before it, what was done, and the reward."""

    state: State
    action: int
    reward: float


class Policy(Protocol):
    """Chooses an action by its number before each epoch, and learns from whole jobs."""

    def act(self, state: State) -> int:
        """Return the number of an action."""
        ...

    def learn(self, episode: Sequence[Taken]) -> None:
        """Take in a job from its first to its last epoch."""
        ...


class Fixed:
    """Takes the same action before every epoch."""

    def __init__(self, action: int) -> None:
        self._action = action

    def act(self, state: State) -> int:
        """Return the action."""
        return self._action

    def learn(self, episode: Sequence[Taken]) -> None:
        """Do nothing: there is nothing to choose."""


class PolicyGradient:
    """REINFORCE (Williams, 1992) with a linear softmax over the state.

    The baseline is the mean return so far. Returns are taken as they are: in units of a deviation known from
    a few of them, some seeds never learnt.
    """

    def __init__(self, actions: int, generator: np.random.Generator, rate: float = 0.1) -> None:
        self.weights = np.zeros((actions, len(State._fields) + 1))
        self._generator, self._rate = generator, rate
        self._count, self._mean = 0, 0.0

    def probabilities(self, state: State) -> Wide:
        """Return how likely each action is."""
        scores = self.weights @ _features(state)
        likely: Wide = np.exp(scores - scores.max())
        likely /= likely.sum()
        return likely

    def act(self, state: State) -> int:
        """Draw an action."""
        likely = self.probabilities(state)
        return int(self._generator.choice(len(likely), p=likely))

    def learn(self, episode: Sequence[Taken]) -> None:
        """Make actions likelier after which more was gained than usual, and others less likely."""
        gradient, gained = np.zeros_like(self.weights), 0.0
        returns: list[float] = []
        for one in reversed(episode):
            gained += one.reward
            returns.append(gained)
        for one, value in zip(reversed(episode), returns, strict=True):
            towards = -self.probabilities(one.state)
            towards[one.action] += 1.0
            gradient += np.outer(towards, _features(one.state)) * (value - self._mean)
        self.weights += self._rate * gradient / max(len(episode), 1)
        for value in returns:
            self._count += 1
            self._mean += (value - self._mean) / self._count


def _features(state: State) -> Wide:
    return np.array([1.0, *state])


def rewards(seconds: Sequence[float], first: int, *, reached: bool) -> list[float]:
    """Return the reward of each epoch that took so many seconds, the last one with what the end brings.

    The ``first`` had so many functions. In units of its time alone who begins with many would pay for that.
    """
    gained = [-one / (first * seconds[0]) if seconds[0] > 0 else -1.0 for one in seconds]
    if gained:
        gained[-1] += REACHED if reached else -REACHED
    return gained


@dataclass(frozen=True)
class BudgetRule:
    """Allows for an epoch as many seconds as what is left pays for, whatever happens in them.

    A function may be lost and launched anew: launches and requests are counted ``TRIES`` times. A launch
    takes the place of the one before, so that seconds are not. ``dollars`` are for the whole job, which will
    use what is ``ahead`` after its last epoch.
    """

    tariff: Tariff
    dollars: float
    ahead: Usage

    def seconds(self, action: Action, spent: float, epoch: Usage) -> float | None:
        """Return for how long an epoch may go on that uses at most ``epoch``; None if it is not to begin."""
        meter = Meter(self.tariff, opened=0.0, memory=action.memory)
        left = self.dollars * (1 - _SLACK) - spent - meter.price(self.ahead)
        fixed = TRIES * (meter.minimum(action.workers) + meter.price(epoch))
        rate = meter.rate(action.workers)
        if rate <= 0.0:
            return float("inf") if fixed <= left else None
        seconds = (left - fixed) / rate - GRACE
        return seconds if seconds >= _SHORTEST else None
