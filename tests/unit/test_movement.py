"""By which pattern updates move, and after how many mini-batches: by what is declared."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trials

from mlless.errors import UsageError
from mlless.job import JobSpec, Network, Scaling, Sync
from mlless.movement import local_steps_of, moved, pattern_of
from mlless.recipes import changed, job_of
from mlless.wishes import Wishes


def ratings(workers: int, **changes: Any) -> JobSpec:
    """Return a job in the shape of ML-20M."""
    spec = job_of(Wishes(workers=2, batch_size=6250), trials.dataset("mf").manifest, "mf")
    model = msgspec.structs.replace(spec.model, users=138_493, items=26_744)
    return msgspec.structs.replace(
        spec, workers=workers, rows=18_000_000, groups=480, local_steps=1, model=model, **changes
    )


def clicks(workers: int, **changes: Any) -> JobSpec:
    spec = job_of(Wishes(workers=2, batch_size=1500), trials.dataset("lr").manifest, "lr")
    model = msgspec.structs.replace(spec.model, features=1 << 18)
    return msgspec.structs.replace(
        spec, workers=workers, rows=1_000_000, groups=480, local_steps=1, model=model, entries=39.0, **changes
    )


@pytest.mark.parametrize("made", [ratings, clicks])
def test_with_more_workers_mergers_pay(made: Any) -> None:
    patterns = [pattern_of(made(workers))[0] for workers in (1, 2, 4, 8, 16, 24, 64)]
    assert patterns == ["broadcast"] * 4 + ["scatter"] * 3


def test_what_moves_is_what_was_measured_and_by_mergers_at_most_linear() -> None:
    """At 24 workers of ML-20M's shape an update has 120 kB of items."""
    everyone, merged = moved(ratings(24))
    assert everyone == pytest.approx(24**2 * 120e3, rel=0.25)
    assert merged < everyone / 3
    large, larger = moved(ratings(64)), moved(ratings(128))
    assert larger[0] == pytest.approx(4 * large[0])
    assert larger[1] < 2.1 * large[1]


def test_a_distant_store_makes_mergers_pay_later() -> None:
    near, far = (ratings(12, network=Network(latency=seconds)) for seconds in (1e-4, 1.0))
    assert (pattern_of(near)[0], pattern_of(far)[0]) == ("scatter", "broadcast")
    slow = ratings(12, network=Network(latency=1.0, rate=1e5))
    assert pattern_of(slow)[0] == "scatter", "what it could move meanwhile is little"


def test_exact_sums_pay_later() -> None:
    sync = msgspec.structs.replace(ratings(8).sync, merged_significance=None)
    assert moved(ratings(8, sync=sync))[1] > 1.3 * moved(ratings(8))[1]


@pytest.mark.parametrize(
    ("made", "rows", "steps"),
    [
        (ratings, 24 * 6250 * 2, 1),
        (ratings, 24 * 6250 * 6, 2),
        (ratings, 24 * 6250 * 12, 4),
        (ratings, 24 * 6250 * 23, 4),
        (ratings, 24 * 6250 * 24, 8),
        (ratings, 24 * 6250 * 500, 8),
        (clicks, 24 * 1500 * 11, 1),
        (clicks, 24 * 1500 * 12, 2),
        (clicks, 24 * 1500 * 24, 4),
        (clicks, 24 * 1500 * 500, 4),
    ],
)
def test_local_steps_are_a_share_of_an_epochs_mini_batches(made: Any, rows: int, steps: int) -> None:
    found, why = local_steps_of(msgspec.structs.replace(made(24), rows=rows))
    assert found == steps
    assert str(rows // 24 // (6250 if made is ratings else 1500)) in why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sync": Sync(significance=0.0, half=False, merge="sum")}, "every change is published"),
        ({"slack": 2}, "slack"),
        ({"scaling": Scaling(policy="published")}, "tuner"),
        ({"workers": 1}, "one worker"),
    ],
)
def test_nothing_but_what_was_measured_takes_local_steps(change: dict[str, Any], why: str) -> None:
    steps, told = local_steps_of(msgspec.structs.replace(ratings(8), **change))
    assert steps == 1
    assert why in told


def test_the_choice_and_its_reason_stand_in_the_job() -> None:
    manifest = trials.dataset("mf").manifest
    spec = job_of(Wishes(workers=4, batch_size=10, factors=3), manifest, "mf")
    assert len(spec.movement) == 2
    assert f"{spec.local_steps} mini-batches an exchange" in spec.movement[0]
    assert spec.movement[1].startswith(spec.pattern)
    assert (spec.local_steps, spec.local_since) == (2, 2)
    named = job_of(Wishes(workers=4, factors=3, pattern="allreduce", local_steps=3), manifest, "mf")
    assert (named.pattern, named.local_steps, named.movement) == ("allreduce", 3, ())


def test_what_is_declared_of_the_store_decides() -> None:
    manifest = trials.dataset("mf").manifest
    near = Wishes(workers=12, factors=3, batch_size=20, store_latency=0.0)
    far = msgspec.structs.replace(near, store_latency=1.0, store_rate=1000.0)
    assert job_of(far, manifest, "mf").network == Network(rate=1e9, latency=1.0)
    assert job_of(far, manifest, "mf").pattern == "broadcast"
    assert job_of(near, manifest, "mf").pattern == "scatter"
    again = changed(job_of(far, manifest, "mf"), {"pattern": "auto", "store_latency": 0.0})
    assert (again.pattern, again.network) == ("scatter", Network(rate=1e9, latency=0.0))
    assert changed(job_of(near, manifest, "mf"), {"store_latency": 1.0}).pattern == "scatter", "as it was"


@pytest.mark.parametrize("wishes", [{"store_rate": 0.0}, {"store_latency": -1.0}, {"local_steps": 0}])
def test_what_cannot_be_is_refused(wishes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        job_of(Wishes(workers=4, factors=3, **wishes), trials.dataset("mf").manifest, "mf")


def test_local_steps_of_one_worker_have_no_effect_and_that_is_told() -> None:
    with pytest.warns(UserWarning, match="local steps have no effect"):
        spec = job_of(Wishes(workers=1, factors=3, local_steps=4), trials.dataset("mf").manifest, "mf")
    assert (spec.local_steps, spec.movement) == (1, ("broadcast: one worker moves nothing",))


def test_the_reasons_of_a_decision_go_with_it() -> None:
    spec = job_of(Wishes(workers=4, batch_size=10, factors=3), trials.dataset("mf").manifest, "mf")
    assert changed(spec, {"epochs": 9}).movement == spec.movement
    assert changed(spec, {"pattern": "allreduce"}).movement == ()
    assert changed(spec, {"workers": 2}).movement == ()
    assert len(changed(spec, {"pattern": "auto"}).movement) == 1


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"pattern": "broadcast", "merged_significance": 0.5}, "threshold of mergers has no effect"),
        ({"slack": 1, "merged_significance": 0.5}, "threshold of mergers has no effect"),
        ({"local_steps": 4, "epochs": 2}, "in 2 they have no effect"),
    ],
)
def test_what_has_no_effect_with_several_workers_is_told(wishes: dict[str, Any], told: str) -> None:
    with pytest.warns(UserWarning, match=told):
        job_of(Wishes(workers=4, factors=3, **wishes), trials.dataset("mf").manifest, "mf")


def test_a_tuner_that_comes_later_has_steps_that_are_alike() -> None:
    spec = job_of(Wishes(workers=4, batch_size=10, factors=3), trials.dataset("mf").manifest, "mf")
    assert spec.local_steps > 1
    assert changed(spec, {"tuner": "published"}).local_steps == 1
    assert changed(spec, {"tuner": "published", "local_steps": 2}).local_steps == 2
    assert changed(spec, {"tuner": "off"}).local_steps == spec.local_steps
