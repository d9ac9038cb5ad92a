"""From what a job asks for to its tuner. SciPy is loaded here, and only for the published rule."""

from __future__ import annotations

from dataclasses import replace

from mlless.autotuner.decision import Goal, Policy
from mlless.autotuner.economy import Economy
from mlless.autotuner.tuner import Runner, Tuner
from mlless.billing.meter import Meter
from mlless.errors import not_installed
from mlless.job import Factorization, JobSpec


def open_tuner(spec: JobSpec, meter: Meter | None, runner: Runner) -> Tuner | None:
    """Return the tuner of a job, whose decisions come about in ``runner``; None if it has none."""
    if spec.scaling.policy == "off":
        return None
    goal = Goal(
        batches=spec.batches * spec.stop.epochs,
        target=spec.stop.target,
        budget=spec.stop.max_cost,
        max_time=spec.stop.max_time,
    )
    return Tuner(_policy(spec, meter), runner, floor=spec.scaling.min_workers, goal=goal)


def _policy(spec: JobSpec, meter: Meter | None) -> Policy:
    if spec.scaling.policy == "economy":
        assert meter is not None, "a job without a tariff"
        function, servers = meter.rate(1) - meter.rate(0), meter.rate(0)
        growth = 1 if spec.shards else 2
        return Economy(function=function, servers=servers, traffic=meter.traffic_rate, growth=growth)
    try:
        from mlless.autotuner.published import Published
    except ModuleNotFoundError as error:
        raise not_installed("the published tuner", "scipy", extra="tuner") from error
    # The published losses of factorisations are roots of mean squares; ours are the mean squares.
    policy, how = Published(root=isinstance(spec.model, Factorization)), spec.scaling
    interval = how.tuner_interval or policy.interval
    ahead = policy.horizon * interval / policy.interval  # half an interval, as published
    return replace(
        policy, interval=interval, horizon=ahead, tolerance=how.tuner_tolerance or policy.tolerance
    )
