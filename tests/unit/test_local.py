"""Training without peers: the same bits as a job with one worker, and going on from where one ended."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from mlless.clock import SystemClock
from mlless.data.holding import Holding
from mlless.local import begin, grow, resume, train_here
from mlless.messages import Plan
from mlless.models import model_of
from mlless.recipes import job_of
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import simulate
from mlless.stepping import Laps, Stepper
from mlless.wishes import Wishes


def spec_for(dataset, **wishes):
    return job_of(Wishes(workers=1, **wishes), dataset.manifest, dataset.location)


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
@pytest.mark.parametrize(
    "wishes",
    [
        {"epochs": 2},
        {"sync": "bsp", "epochs": 2},
        {"target": "train_loss=0.5"},
        {"optimizer": "nesterov", "epochs": 1, "batch_size": 240},
    ],
)
def test_same_bits_and_records_as_a_job_with_one_worker(request, kind, wishes):
    dataset = request.getfixturevalue(kind)
    spec = spec_for(dataset, **wishes)
    job = simulate(spec, dataset, Durations())
    course, records = begin(spec.model, spec.seed), []
    ending = train_here(spec, dataset, course, clock=SystemClock(), listen=records.append)
    for name, table in course.replica.snapshot().items():
        np.testing.assert_array_equal(table, job.tables[name])
    assert ending.stop_reason == job.outcome.stop_reason
    assert ending.model == job.outcome.model
    assert course.step + 1 == len(records) == len(job.records)
    for ours, theirs in zip(records, job.records, strict=True):
        for field in ("step", "epoch", "loss", "train_loss", "heldout", "samples", "entries"):
            assert getattr(ours, field) == getattr(theirs, field), field


def test_no_residual_is_left(ratings):
    spec = spec_for(ratings, epochs=1)
    course = begin(spec.model, 0)
    train_here(spec, ratings, course, clock=SystemClock())
    assert all(not table.residual.any() for table in course.replica.tables)


def test_grown_tables_keep_what_was_learnt(ratings):
    spec = spec_for(ratings, epochs=1)
    course = begin(spec.model, 0)
    train_here(spec, ratings, course, clock=SystemClock())
    wider = msgspec.structs.replace(spec.model, users=spec.model.users + 5, items=spec.model.items + 1)
    sizes = [table.shape.rows for table in course.replica.tables]
    learnt = [table.rows.data.view(np.uint32).copy() for table in course.replica.tables]
    grown = grow(course, wider, seed=1)
    assert grown.step == course.step
    for rows, before, after in zip(sizes, learnt, grown.replica.tables, strict=True):
        np.testing.assert_array_equal(after.rows.data[:rows].view(np.uint32), before)
        assert (after.last[rows:] == course.step - 1).all()
        assert not after.state[rows:].any()
        assert after.shared[rows:, :-1].any()
        assert len(after.rows.data) == after.shape.rows
    memory = [table.rows.data.ctypes.data for table in grown.replica.tables]
    wider = msgspec.structs.replace(wider, users=wider.users + 1)
    assert [table.rows.data.ctypes.data for table in grow(grown, wider, seed=1).replica.tables] == memory


def test_little_data_that_diverges_leaves_a_large_model_as_it_was(ratings):
    """Only what little data can move is kept to go back to; a bad start elsewhere stays what it is."""
    spec = spec_for(ratings, epochs=1)
    wide = msgspec.structs.replace(spec.model, users=100_000)
    course = begin(wide, 0)
    before = course.replica.snapshot()
    bad = msgspec.structs.replace(spec_for(ratings, optimizer="nesterov", learning_rate=1e4), model=wide)
    ending = train_here(bad, ratings, course, clock=SystemClock())
    assert ending.stop_reason == "diverged"
    for name, table in course.replica.snapshot().items():
        np.testing.assert_array_equal(table, before[name])


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_a_later_training_that_diverges_keeps_the_model(request, kind):
    dataset = request.getfixturevalue(kind)
    spec = spec_for(dataset, epochs=2)
    course = begin(spec.model, 0)
    train_here(spec, dataset, course, clock=SystemClock())
    before = course.replica.snapshot()
    unseen = dataclasses.replace(dataset, manifest=msgspec.structs.replace(dataset.manifest, validation=()))
    bad = spec_for(unseen, optimizer="nesterov", learning_rate=1e30)
    ending = train_here(bad, unseen, course, clock=SystemClock())
    assert (ending.stop_reason, ending.model.restored) == ("diverged", True)
    for name, table in course.replica.snapshot().items():
        np.testing.assert_array_equal(table, before[name])
    assert all(not table.residual.any() for table in course.replica.tables)


def test_l2_is_not_applied_again_for_steps_before_the_model_was_saved(clicks):
    spec = spec_for(clicks, optimizer="nesterov", l2=0.5, epochs=1)
    course = begin(spec.model, 0)
    train_here(spec, clicks, course, clock=SystemClock())
    again = resume(spec.model, course.step, course.replica.snapshot())
    clock, holding = SystemClock(), Holding(clicks, spec.seed)
    stepper = Stepper(spec, holding, again.replica, clock, Laps(clock))
    stepper.flush(Plan(course.step, (0,), epoch=1, parts=spec.batches, part=0, flush=(0,)))
    for name, table in again.replica.snapshot().items():
        np.testing.assert_array_equal(table, course.replica.snapshot()[name])


def test_a_model_without_memory_is_not_thrown_about(ratings):
    """With Adagrad's sums at zero the first steps would be as long as the learning rate."""
    spec = spec_for(ratings, epochs=3)
    course = begin(spec.model, 0)
    before = train_here(spec, ratings, course, clock=SystemClock()).model.heldout["rmse"]
    tables = course.replica.snapshot()
    after = {}
    for remembers in (False, True):
        again = resume(spec.model, course.step, tables)
        again.remembers = remembers
        steps = []
        train_here(spec, ratings, again, clock=SystemClock(), listen=steps.append)
        after[remembers] = steps[5].loss
        assert again.remembers
    assert after[False] < after[True]
    assert after[False] < 1.3 * before**2


def test_parts_without_rows_are_passed_over_where_mini_batches_are_tiny(ratings):
    few = msgspec.structs.replace(ratings.manifest, train=ratings.manifest.train[:2], validation=())
    dataset = dataclasses.replace(ratings, manifest=few)
    spec = spec_for(dataset, batch_size=1, epochs=1)
    course, steps = begin(spec.model, 0), []
    course.remembers = False
    train_here(spec, dataset, course, clock=SystemClock(), listen=steps.append)
    assert 0 in [step.samples for step in steps[:-2]]
    assert sum(step.samples for step in steps) == spec.rows


def test_a_listener_ends_it_two_steps_later_and_it_is_scored(clicks):
    spec = spec_for(clicks, epochs=3)
    course, steps = begin(spec.model, 0), []

    def listen(record):
        steps.append(record.step)
        return record.step == 4

    ending = train_here(spec, clicks, course, clock=SystemClock(), listen=listen)
    assert ending.stop_reason == "callback"
    assert steps == [0, 1, 2, 3, 4, 5, 6, 7]


def test_what_diverges_goes_back_to_the_best_and_forgets(ratings):
    spec = spec_for(ratings, optimizer="nesterov", learning_rate=1e4)
    course = begin(spec.model, 0)
    ending = train_here(spec, ratings, course, clock=SystemClock())
    assert (ending.stop_reason, ending.model.restored) == ("diverged", True)
    assert not course.remembers
    start = model_of(spec.model).initial(np.random.Generator(np.random.PCG64(0)))
    np.testing.assert_array_equal(course.replica.snapshot()["users"], start["users"])
    assert all(np.isfinite(table.state).all() for table in course.replica.tables)
