"""Callbacks of any training: what they hear, in which order, and how they may end it."""

from __future__ import annotations

import logging

import pytest

import mlless
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import UsageError
from mlless.tracking.callback import Callbacks


class Recorder:
    """Keeps all that it hears."""

    def __init__(self) -> None:
        self.heard = []
        self.steps, self.epochs = [], []

    def on_begin(self, beginning):
        self.heard.append(beginning)

    def on_step(self, record):
        self.steps.append(record)

    def on_epoch(self, record):
        self.epochs.append(record)

    def on_end(self, ending):
        self.heard.append(ending)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_is_told_from_its_beginning_to_its_end(ratings, run_folder, workers):
    recorder, listened = Recorder(), []
    run = mlless.train(
        ratings,
        out=run_folder,
        workers=workers,
        epochs=2,
        verbose=False,
        callbacks=[recorder],
        listen=listened.append,
    )
    beginning, ending = recorder.heard
    assert (beginning.job, beginning.run, beginning.step) == (run.summary.job, str(run_folder), 0)
    assert (ending.stop_reason, ending.heldout, ending.error) == ("epochs", run.summary.heldout, None)
    assert listened == run.history()
    assert recorder.steps == listened[:-1]  # the last one is no step of training
    assert [record.heldout for record in recorder.epochs] == [
        record.heldout for record in listened[1:] if record.heldout is not None
    ]


def test_a_function_that_returns_true_ends_a_training(ratings, run_folder):
    run = mlless.train(
        ratings, out=run_folder, epochs=30, verbose=False, callbacks=[lambda record: record.epoch >= 1]
    )
    assert run.summary.stop_reason == "callback"
    assert run.summary.epochs < 3


def test_who_has_heard_the_beginning_hears_of_a_failure(ratings, run_folder):
    class Failing(Recorder):
        def on_step(self, record):
            raise ValueError("no more redis://user:secret@host")

    first, failing = Recorder(), Failing()
    with pytest.raises(ValueError, match="no more"):
        mlless.train(ratings, out=run_folder, epochs=1, verbose=False, callbacks=[first, failing])
    for one in (first, failing):
        _, ending = one.heard
        assert ending.stop_reason == "failed"
        assert "no more" in ending.error
        assert "secret" not in ending.error


def test_a_fit_is_told_from_its_beginning_to_its_end():
    recorder = Recorder()
    pairs = [(user, item) for user in range(60) for item in range(40)]
    model = mlless.MatrixFactorization(max_iter=3, random_state=0, refit=False, callbacks=[recorder])
    model.fit(pairs, [1.0 + (user * item) % 5 for user, item in pairs])
    beginning, ending = recorder.heard
    assert (beginning.run, beginning.step) == (None, 0)
    assert (ending.stop_reason, ending.heldout) == (model.stop_reason_, model.heldout_)
    assert len(recorder.steps) == model.n_steps_


def test_the_log_tells_a_training(ratings, run_folder, caplog):
    caplog.set_level(logging.INFO, logger="mlless")
    run = mlless.train(ratings, out=run_folder, epochs=2, verbose=False)
    told = [record.getMessage() for record in caplog.records if record.name == "mlless.job"]
    assert "begins" in told[0]
    assert told[-1].startswith("ended: epochs rmse")
    evaluations = [record for record in run.history() if record.heldout is not None]
    assert len([line for line in told if line.startswith("epoch")]) == len(evaluations)


def test_nothing_is_printed(ratings, run_folder, capfd):
    mlless.train(ratings, out=run_folder, workers=2, epochs=1, verbose=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("log_to", "words"),
    [("splunk:x", "not a tool"), ("tensorboard", "no folder"), ("mlflow:x tensorboard:", "no folder")],
)
def test_tools_that_there_are_not_are_refused(log_to, words):
    with pytest.raises(UsageError, match=words):
        Deployment(log_to=log_to)


def test_who_follows_a_job_does_not_move_it_to_functions(ratings, run_folder, tmp_path):
    pytest.importorskip("tensorboard")
    deployment = Deployment(log_to=f"tensorboard:{tmp_path}")
    assert deployment.is_plain
    assert not Deployment(store="redis://h").is_plain
    run = mlless.train(ratings, out=run_folder, epochs=1, verbose=False, log_to=deployment.log_to)
    assert [worker.worker for worker in run.summary.workers] == [0]


def test_passwords_of_a_tool_are_in_no_file(ratings, run_folder, recwarn):
    bare = Deployment(log_to="mlflow:http://me:secret@host:5000 wandb:p").bare()
    assert bare.log_to == "mlflow:http://host:5000 wandb:p"


def test_callbacks_say_the_end_once():
    recorder = Recorder()
    told = Callbacks([recorder])
    told.begin("begins")
    told.end("ends")
    told.end("ends again")
    assert recorder.heard == ["begins", "ends"]


def test_run_job_takes_them(ratings, run_folder):
    from mlless.driver import plan_job
    from mlless.wishes import Wishes

    recorder = Recorder()
    run_job(plan_job(Wishes(epochs=1), ratings), ratings, run_folder, callbacks=[recorder])
    assert len(recorder.heard) == 2
