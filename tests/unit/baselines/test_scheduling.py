"""The scheduler of SIREN: its budget rule against all that may befall an epoch, and what a policy learns."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlless.baselines.scheduling import (
    GRACE,
    REACHED,
    Action,
    BudgetRule,
    Fixed,
    PolicyGradient,
    State,
    Taken,
    rewards,
)
from mlless.billing.meter import Meter, Usage
from mlless.billing.tariff import load_tariff
from mlless.losses import TRIES

TARIFFS = ["aws-lambda-x86", "google-cloud-run", "published-ibm"]
BEGIN = State(0.0, 1.0, 1.0, 0.0, 1.0)
LATER = State(0.5, 0.4, 0.3, 1.0, 0.8)
USAGES = st.builds(Usage, *(st.integers(0, most) for most in (3000, 3000, 10**9, 10**9)))
EPOCHS = st.lists(st.tuples(st.integers(1, 64), USAGES), min_size=1, max_size=5)


@given(
    st.sampled_from(TARIFFS),
    st.sampled_from([512, 2048, 3008]),
    st.floats(1.05, 20.0),
    st.integers(1, TRIES),
    USAGES,
    EPOCHS,
)
@settings(max_examples=60)
@example("aws-lambda-x86", 2048, 1.2, TRIES, Usage(), [(2, Usage(3000, 3000))])
@example("aws-lambda-x86", 2048, 1.2, 1, Usage(3000, 3000), [(2, Usage())])
@example("published-ibm", 2048, 1.2, TRIES, Usage(), [(64, Usage())])
def test_no_job_costs_more_than_its_budget(tariff_name, memory, factor, launches, ahead, epochs) -> None:
    """All functions are lost as often as they may be, stall until they are ended, and use all they may.

    The budget is a few times what the first epoch needs at least, so that nothing it consists of is small.
    """
    tariff = msgspec.structs.replace(load_tariff(tariff_name), servers=())
    meter, now = Meter(tariff, opened=0.0, memory=memory), 0.0
    workers, first = epochs[0]
    least = TRIES * (meter.minimum(workers) + meter.price(first)) + meter.price(ahead)
    dollars = factor * (least + meter.rate(workers) * (GRACE + 1.0))
    rule, begun = BudgetRule(tariff, dollars, ahead), 0
    for epoch, (workers, usage) in enumerate(epochs * 4):
        seconds = rule.seconds(Action(workers, memory), meter.cost(now), usage)
        if seconds is None:
            continue
        begun, longest = begun + 1, seconds + GRACE
        for launch in range(launches):
            functions = [(epoch, worker, launch) for worker in range(workers)]
            meter.start(functions, now + longest * launch / launches)
            for function in functions:
                meter.end(function, now + longest * (launch + 1) / launches)
            meter.use(usage)
        now += longest
    meter.use(ahead)
    assert begun
    assert meter.cost(now) <= dollars


def test_what_is_left_is_given_to_an_epoch() -> None:
    tariff = msgspec.structs.replace(load_tariff("published-ibm"), servers=())
    rule = BudgetRule(tariff, 1.0, Usage())
    few, many = (rule.seconds(Action(workers, 2048), 0.0, Usage()) for workers in (1, 10))
    assert few == pytest.approx(0.99 / (2 * 0.000017), rel=1e-3)
    assert many == pytest.approx(few / 10, rel=1e-3)
    assert rule.seconds(Action(1, 1024), 0.0, Usage()) == pytest.approx(2 * few, rel=1e-3)
    assert rule.seconds(Action(1, 2048), 0.5, Usage()) == pytest.approx(few * 0.49 / 0.99, rel=1e-3)
    assert rule.seconds(Action(1, 2048), 0.99, Usage()) is None


def test_an_epoch_is_rewarded_for_being_short_and_the_last_for_the_target() -> None:
    assert rewards([2.0, 1.0, 4.0], 1, reached=True) == [-1.0, -0.5, -2.0 + REACHED]
    assert rewards([2.0, 1.0], 4, reached=False) == [-0.25, -0.125 - REACHED]
    assert rewards([], 1, reached=True) == []
    assert Fixed(3).act(BEGIN) == 3


@pytest.mark.parametrize("seed", range(6))
def test_a_policy_learns_which_arm_pays_in_which_state(seed: int) -> None:
    """A bandit with a context: arm 0 pays before the first epoch, arm 2 later."""
    generator = np.random.default_rng(seed)
    policy = PolicyGradient(3, generator)
    for _ in range(600):
        state = BEGIN if generator.random() < 0.5 else LATER
        action = policy.act(state)
        paid = float(action == (0 if state is BEGIN else 2)) + generator.normal(0.0, 0.1)
        policy.learn([Taken(state, action, paid)])
    assert policy.probabilities(BEGIN)[0] > 0.8
    assert policy.probabilities(LATER)[2] > 0.8


def test_an_action_is_credited_with_what_comes_after_it() -> None:
    """Only the first action of an episode decides what the second epoch pays."""
    policy = PolicyGradient(2, np.random.default_rng(5))
    for _ in range(600):
        first, second = policy.act(BEGIN), policy.act(LATER)
        policy.learn([Taken(BEGIN, first, 0.0), Taken(LATER, second, float(first == 1))])
    assert policy.probabilities(BEGIN)[1] > 0.9


def test_the_same_seed_learns_the_same() -> None:
    def learnt() -> np.ndarray:
        policy = PolicyGradient(3, np.random.default_rng(2))
        for _ in range(20):
            policy.learn([Taken(BEGIN, action := policy.act(BEGIN), float(action))])
        return policy.weights

    assert learnt().tobytes() == learnt().tobytes()
    assert PolicyGradient(3, np.random.default_rng(2)).probabilities(LATER) == pytest.approx([1 / 3] * 3)
