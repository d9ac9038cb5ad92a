"""One machine: the tools that one would use there, each in a process of its own, on one thread.

scikit-learn's ``SGDClassifier``, Vowpal Wabbit, and by biased SGD (Koren, Bell and Volinsky, 2009) cornac's
``MF`` and surprise's ``SVD``, all with their own default settings. Their models are written as ours, and
scored by our kernels.

A step is an epoch over all rows, so that early stopping works as for everyone; surprise cannot go on with a
fit, so that all of one is a step. The training loss is that of the first rows alone. To import a library does
not count, nor does starting Python; to read the data set does.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import numpy as np
import safetensors.numpy

import mlless
from mlless.baselines.contract import MLLESS_ALONE, Function, System, Tables, run_function
from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.groups import joined
from mlless.data.holding import Holding
from mlless.job import Factorization, JobSpec, Logistic
from mlless.local import begin
from mlless.messages import (
    PROTOCOL,
    Begin,
    Commit,
    Donate,
    Donated,
    Hello,
    Origin,
    Plan,
    Report,
)
from mlless.models import model_of
from mlless.stepping import Laps, Stepper
from mlless.stopping import Choice
from mlless.wishes import Wishes

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage

_SAMPLE = 25_000  # rows whose loss stands for that of all


class Learner(Protocol):
    """A library's model of training rows."""

    def epoch(self) -> None:
        """Go once over all rows."""
        ...

    def tables(self) -> Tables:
        """Return the model as it is now."""
        ...


class _Sgd:
    def __init__(self, spec: JobSpec, rows: Any) -> None:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import SGDClassifier

        assert isinstance(spec.model, Logistic)
        values = np.ones(len(rows.indices), np.float32) if rows.values is None else rows.values
        self._x = csr_matrix((values, rows.indices, rows.starts), (len(rows), spec.model.features))
        self._rows, self._model = rows, SGDClassifier(loss="log_loss", random_state=spec.seed)

    def epoch(self) -> None:
        """Pass over the rows once."""
        self._model.partial_fit(self._x, self._rows.labels, classes=[0, 1], sample_weight=self._rows.weights)

    def tables(self) -> Tables:
        """Return the model as tables of MLLess."""
        weights, intercept = self._model.coef_.T, self._model.intercept_.reshape(1, 1)
        return {"features": weights.astype(np.float32), "intercept": intercept.astype(np.float32)}


class _Vowpal:
    """Vowpal Wabbit over a file of its own format, from which it makes its cache in the first epoch."""

    def __init__(self, spec: JobSpec, rows: Any) -> None:
        assert isinstance(spec.model, Logistic)
        self._features, self._used = spec.model.features, np.unique(rows.indices)
        self._folder = tempfile.TemporaryDirectory(prefix="mlless-vw-")
        self._data, self._model = (Path(self._folder.name) / name for name in ("rows.txt", "model"))
        bits = self._features.bit_length()  # one weight more than features: that of the constant
        self._options = f"--loss_function logistic -b {bits} --noconstant --holdout_off --quiet"
        values = np.ones(len(rows.indices), np.float32) if rows.values is None else rows.values
        weights = np.ones(len(rows), np.float32) if rows.weights is None else rows.weights
        entries = [f"{index}:{value:.9g}" for index, value in zip(rows.indices, values, strict=True)]
        starts = rows.starts.tolist()
        with self._data.open("w") as file:
            for row, (label, weight) in enumerate(zip(rows.labels, weights, strict=True)):
                told = " ".join(entries[starts[row] : starts[row + 1]])
                file.write(f"{1 if label else -1} {weight:.9g} | {self._features}:1 {told}\n")

    def epoch(self) -> None:
        """Pass over the rows once."""
        from vowpalwabbit import Workspace

        before = f"-i {self._model}" if self._model.exists() else ""
        files = f"-d {self._data} --cache_file {self._data}.cache -f {self._model} {before}"
        Workspace(f"{self._options} {files}").finish()

    def tables(self) -> Tables:
        """Return the model as tables of MLLess."""
        from vowpalwabbit import Workspace

        found = Workspace(f"-i {self._model} --quiet")
        weights = np.zeros((self._features, 1), np.float32)
        weights[self._used, 0] = [found.get_weight(index) for index in self._used.tolist()]
        intercept = np.array([[found.get_weight(self._features)]], np.float32)
        found.finish()
        return {"features": weights, "intercept": intercept}


class _Cornac:
    def __init__(self, spec: JobSpec, rows: Any) -> None:
        from cornac.data import Dataset
        from cornac.models import MF

        assert isinstance(spec.model, Factorization)
        self._spec, (users, items) = spec.model, (spec.model.users, spec.model.items)
        ids = ({row: row for row in range(count)} for count in (users, items))
        triples = rows.users.astype(np.int64), rows.items.astype(np.int64), rows.ratings
        self._rows = Dataset(users, items, *ids, triples, seed=spec.seed)
        self._model = MF(k=spec.model.factors, max_iter=1, seed=spec.seed)

    def epoch(self) -> None:
        """Pass over the rows once."""
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # it goes on from what it has
            self._model.fit(self._rows)

    def tables(self) -> Tables:
        """Return the model as tables of MLLess."""
        model = self._model
        return _standardised(
            self._spec, model.global_mean, model.u_factors, model.u_biases, model.i_factors, model.i_biases
        )


class _Surprise:
    def __init__(self, spec: JobSpec, rows: Any) -> None:
        from surprise import SVD, Trainset

        assert isinstance(spec.model, Factorization)
        self._spec = spec.model
        of_users: dict[int, list[tuple[int, float]]] = {}
        for user, item, rating in zip(
            *(c.tolist() for c in (rows.users, rows.items, rows.ratings)), strict=True
        ):
            of_users.setdefault(user, []).append((item, rating))
        shape = spec.model.users, spec.model.items, len(rows), (spec.model.low, spec.model.high)
        self._rows = Trainset(of_users, {}, *shape, {}, {})
        self._model = SVD(n_factors=spec.model.factors, random_state=spec.seed)

    def epoch(self) -> None:
        """Pass over the rows once."""
        self._model.fit(self._rows)

    def tables(self) -> Tables:
        """Return the model as tables of MLLess."""
        model = self._model
        return _standardised(self._spec, self._rows.global_mean, model.pu, model.bu, model.qi, model.bi)


def _standardised(spec: Factorization, mean: float, p: Any, p_bias: Any, q: Any, q_bias: Any) -> Tables:
    """Return factors and biases of ratings about a mean as those of standardised ratings."""
    users = np.column_stack([p, p_bias + float(mean) - spec.centre]) / spec.deviation
    items = np.column_stack([q, q_bias / spec.deviation])
    return {"users": users.astype(np.float32), "items": items.astype(np.float32)}


LEARNERS: dict[str, tuple[str, type[Learner]]] = {
    "sklearn-sgd": ("sklearn.linear_model", _Sgd),
    "vowpal-wabbit": ("vowpalwabbit", _Vowpal),
    "cornac": ("cornac.models", _Cornac),
    "surprise": ("surprise", _Surprise),
}


class Task(msgspec.Struct, frozen=True):
    """Which learner is to learn."""

    learner: str


def main(payload: bytes) -> None:
    """Learn what ``payload`` says."""
    run_function(payload, work)


def work(function: Function) -> None:
    """Take epoch after epoch, until who leads says that it is over."""
    job, me, link = function.launch.job, function.launch.me, function.link
    module, learner = LEARNERS[msgspec.json.decode(function.launch.task, type=Task).learner]
    importlib.import_module(module)
    link.send(Hello(*me, os.getpid(), PROTOCOL, mlless.__version__))
    course = _Course(function, learner)
    while True:
        match link.receive(job.deadlines.commit):
            case Begin(plans=(plan, *_)) | Commit(plans=(plan, *_)):
                link.send(course.step(plan))
            case Donate(step=step):
                function.objects.put(_model(step), safetensors.numpy.save(course.before))
                link.send(Donated(*me, Origin(_model(step), step, "")))
            case _:
                return


def _model(step: int) -> str:
    return f"model-{step}"


class _Course:
    """A learner on its way, and the model ``before`` its newest step."""

    def __init__(self, function: Function, learner: Any) -> None:
        self._me, spec, dataset = function.launch.me, function.launch.job, function.dataset
        self._model, self._laps = model_of(spec.model), Laps(function.clock)
        rows = joined(list(dataset.groups(dataset.manifest.train)))
        sample = np.zeros(1, np.int64), np.array([min(_SAMPLE, len(rows))])
        self._sample = assemble(rows, *sample, dataset.manifest.shape)
        self._learner, self._rows = learner(spec, rows), len(rows)
        self._replica = begin(spec.model, spec.seed).replica
        holding = Holding(dataset, spec.seed)
        self._scorer = Stepper(spec, holding, self._replica, function.clock, self._laps)
        self.before = self._replica.snapshot()

    def step(self, plan: Plan) -> Report:
        """Score the model if that is due, and learn for an epoch; return the report."""
        self.before = self._replica.snapshot()
        report, _ = self._scorer.take_part(msgspec.structs.replace(plan, flush=(), last=True), self._me)
        if plan.trainers:
            sums = self._model.evaluate(self._replica, self._sample)
            self._learner.epoch()
            self._replica.restore(self._learner.tables())
            self._laps.lap("compute")
            finite = all(np.isfinite(table.shared).all() for table in self._replica.tables)
            loss = sums.loss / sums.samples * self._rows
            report = msgspec.structs.replace(report, samples=self._rows, loss=loss, finite=finite)
        return msgspec.structs.replace(report, times=self._laps.take())


def lead(stage: Stage, learner: str) -> tuple[Tables, Choice]:
    """Have a learner learn until a rule of the job ends it; return the better of its best and last model."""
    hub, me = stage.session.hub, stage.start({0: Task(learner)})
    assert isinstance(stage.receive(), Hello)
    stage.begin()

    def take(plan: Plan) -> list[Report]:
        """Have the step taken; return its report."""
        hub.broadcast(Commit(plan.step - 1, (), (plan,)), me)
        report = stage.receive()
        assert isinstance(report, Report)
        return [report]

    def read(step: int) -> Tables:
        """Have the model before a step stored, and return it."""
        hub.broadcast(Donate(step), me)
        assert isinstance(stage.receive(), Donated)
        return safetensors.numpy.load(stage.objects.get(_model(step)))

    ending = stage.steps(take, read)
    hub.broadcast(Commit(-1, (), (), end=True), me)
    return ending


class _Single(System):
    def plan(self, wishes: Wishes, dataset: Dataset) -> JobSpec:
        """Return a job in which a step is an epoch."""
        spec = super().plan(wishes, dataset)
        return msgspec.structs.replace(spec, batch_size=spec.rows)


def _single(learner: str, about: str, kind: Literal["mf", "lr"], package: str, **wishes: object) -> System:
    return _Single(
        about=about,
        kinds=(kind,),
        wishes={"workers": 1, "sync": "bsp", **wishes},
        packages={LEARNERS[learner][0].partition(".")[0]: package},
        served=False,
        here=True,
        keeps=(*MLLESS_ALONE, "optimizer", "learning_rate", "l2", "batch_size"),
        entry="mlless.baselines.single:main",
        real="what its library takes is not known",
        lead=partial(lead, learner=learner),
    )


SYSTEMS = {
    "sklearn-sgd": _single("sklearn-sgd", "scikit-learn's SGDClassifier on one thread", "lr", "scikit-learn"),
    "vowpal-wabbit": _single("vowpal-wabbit", "Vowpal Wabbit on one thread", "lr", "vowpalwabbit"),
    "cornac": _single("cornac", "cornac's MF on one thread", "mf", "cornac"),
    "surprise": _single("surprise", "surprise's SVD on one thread", "mf", "scikit-surprise", epochs=1),
}
