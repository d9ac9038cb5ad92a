"""Who listens to a fit: our own callbacks, and scikit-learn's."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import mlless


class Recorder:
    """Keeps what it hears; asks to stop after an epoch."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.steps, self.epochs = [], []

    def on_step(self, record):
        self.steps.append(record)

    def on_epoch(self, record):
        self.epochs.append(record)
        return len(self.epochs) == self.stop_after


@pytest.mark.parametrize("workers", [1, 2])
def test_every_step_and_epoch_is_heard(pairs, workers):
    recorder = Recorder()
    model = mlless.MatrixFactorization(
        max_iter=4, batch_size=400, random_state=0, refit=False, callbacks=[recorder], workers=workers
    ).fit(*pairs)
    assert len(recorder.steps) == model.n_steps_
    assert [record.step for record in recorder.steps] == list(range(model.n_steps_))
    assert len(recorder.epochs) == 4
    assert recorder.epochs[-1].heldout == model.heldout_
    errors = [record.heldout["rmse"] for record in recorder.epochs]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_callback_may_end_the_fit(pairs, workers):
    recorder = Recorder(stop_after=2)
    model = mlless.MatrixFactorization(
        max_iter=20, batch_size=400, random_state=0, callbacks=[recorder], workers=workers
    ).fit(*pairs)
    assert model.stop_reason_ == "callback"
    assert model.n_iter_ in (2, 3)


def test_a_fit_is_repeated_for_the_epochs_that_were_best_whatever_a_step_has(pairs):
    """Two workers take several mini-batches a step from the third epoch on."""
    recorder = Recorder()
    model = mlless.MatrixFactorization(
        max_iter=8, batch_size=50, random_state=0, callbacks=[recorder], workers=2
    ).fit(*pairs)
    steps = np.diff([0, *[record.step + 1 for record in recorder.epochs]])
    assert steps.min() < steps.max() / 4
    errors = [record.heldout["rmse"] for record in recorder.epochs]
    assert model.n_iter_ == 1 + errors.index(min(errors)) > 2


@pytest.fixture
def ctrl_c():
    """Let a SIGINT raise: a program that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_ctrl_c_raises_or_ends_a_fit_of_several_workers_in_order(pairs):
    times = []

    def interrupt(record):
        times.append(record.epoch)
        if len(times) == 1:
            signal.raise_signal(signal.SIGINT)

    model = mlless.MatrixFactorization(max_iter=50, batch_size=400, random_state=0, callbacks=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        model.fit(*pairs)
    times.clear()
    model.set_params(workers=2).fit(*pairs)
    assert model.stop_reason_ == "interrupted"
    assert len(times) < 50
    assert np.isfinite(model.predict(pairs[0])).all()


@pytest.mark.filterwarnings("ignore::mlless.errors.DataWarning")
@pytest.mark.parametrize("seed", range(4))
def test_an_epoch_that_begins_with_an_empty_mini_batch_is_not_the_end(pairs, seed):
    recorder = Recorder()
    model = mlless.MatrixFactorization(
        max_iter=6, batch_size=1, random_state=seed, refit=False, callbacks=[recorder]
    ).fit(pairs[0][:300], pairs[1][:300])
    assert 0 in [record.samples for record in recorder.steps[:-1]]
    assert len(recorder.steps) == model.n_steps_
    assert len(recorder.epochs) == len(model.loss_curve_) == model.n_iter_


def test_a_callback_needs_only_one_method(labelled):
    class Steps:
        count = 0

        def on_step(self, record):
            self.count += 1

    steps = Steps()
    model = mlless.LogisticRegression(max_iter=3, random_state=0, callbacks=[steps]).fit(*labelled)
    assert steps.count == model.n_steps_


def test_a_function_hears_of_every_epoch(labelled):
    epochs = []
    mlless.LogisticRegression(max_iter=3, random_state=0, callbacks=[epochs.append]).fit(*labelled)
    assert len(epochs) == 3
    model = mlless.LogisticRegression(max_iter=9, random_state=0, callbacks=[lambda record: True])
    assert model.fit(*labelled).stop_reason_ == "callback"


class Misspelt:
    def on_step(self, record): ...

    def on_epochs(self, record): ...


@pytest.mark.parametrize("callback", [Misspelt(), Recorder, object(), "print", None])
def test_what_no_one_would_call_is_refused(labelled, callback):
    with pytest.raises(TypeError, match="on_begin, on_step, on_epoch, on_end"):
        mlless.LogisticRegression(callbacks=[callback]).fit(*labelled)
    with pytest.raises(TypeError, match="'callbacks' parameter"):
        mlless.LogisticRegression(callbacks=print).fit(*labelled)


class Tasks:
    """A callback in scikit-learn's protocol."""

    def __init__(self, stop_after=None):
        self.stop_after, self.events, self.scores = stop_after, [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.events.append(f"end {context.task_name}")
        if fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y))
        return self.stop_after is not None and len(self.scores) == self.stop_after

    def teardown(self, estimator, context):
        self.events.append("teardown")


def test_callbacks_of_scikit_learn(labelled, pairs):
    pytest.importorskip("sklearn.callback", reason="this scikit-learn has no callbacks")
    for estimator, (X, y) in (
        (mlless.LogisticRegression(max_iter=3, random_state=0), labelled),
        (mlless.MatrixFactorization(max_iter=3, random_state=0), pairs),
    ):
        tasks = Tasks()
        estimator.set_callbacks(tasks).fit(X, y)
        epochs = ["begin epoch", "end epoch"] * 3
        assert tasks.events == ["setup", "begin fit", *epochs, "end fit", "teardown"]
        assert len(tasks.scores) == 4
        assert tasks.scores[-1] == pytest.approx(estimator.score(X, y))
        assert tasks.scores[0] < tasks.scores[-1] + 0.05


def test_callbacks_of_scikit_learn_may_end_the_fit(labelled):
    pytest.importorskip("sklearn.callback", reason="this scikit-learn has no callbacks")
    estimator = mlless.LogisticRegression(max_iter=50, random_state=0).set_callbacks(Tasks(stop_after=2))
    estimator.fit(*labelled)
    assert estimator.stop_reason_ == "callback"
    assert estimator.n_iter_ <= 4
    assert np.isfinite(estimator.coef_).all()
