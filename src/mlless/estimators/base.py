"""What both estimators share: wishes, training here or on worker processes, going on, files."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

import mlless
from mlless import recipes
from mlless.artifact import FORMAT, Artifact, Description, read_artifact, write_artifact
from mlless.clock import SystemClock
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.ids import RatingIds
from mlless.data.manifest import Clicks
from mlless.data.memory import IN_MEMORY, of_all_rows, store_dataset
from mlless.driver import plan_job, run_job
from mlless.errors import DataWarning, InputError, MLLessError, UsageError
from mlless.estimators.callbacks import WRAPPED, Audience, CallbackSupportMixin
from mlless.estimators.parameters import Parameters, plain
from mlless.job import Factorization, JobSpec, Logistic, Stop
from mlless.local import Course, begin, grow, resume, train_here
from mlless.locations import Location, place_of
from mlless.records import StepRecord
from mlless.stopping import Choice
from mlless.wishes import Wishes

Data = Any  # an array, a SciPy sparse matrix, a frame, a data set or its folder
Arrays = Mapping[str, NDArray[np.generic]]
Hear = Callable[[StepRecord], bool]
# What a fit leaves behind beside the model, as far as it is known of a run of `mlless.train`.
_UNKNOWN: dict[str, Any] = {
    "n_iter_": 1,
    "heldout_": {},
    "stop_reason_": "epochs",
    "loss_curve_": [],
    "validation_scores_": None,
    "best_validation_score_": None,
}


@contextmanager
def as_value_error() -> Iterator[None]:
    """Turn the error of a request, or of data, that is not fit for training into scikit-learn's."""
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from error
    except InputError as error:  # what cures a file does not cure an array
        told = MLLessError(error.what, where=error.where, expected=error.expected, found=error.found)
        raise ValueError(str(told)) from error


def dataset_in(data: Data, y: Any = None) -> Dataset | None:
    """Return the partitioned data set that ``data`` is or names, None if it is something else."""
    if not isinstance(data, str | Path | Dataset):
        return None
    if y is not None:
        raise ValueError("a partitioned data set holds its targets: leave y out")
    return data if isinstance(data, Dataset) else open_dataset(data)


class FitEnd(NamedTuple):
    """How one training ended: the reason, the epochs it took, and its model."""

    stop_reason: str
    epochs: float
    model: Choice

    @property
    def can_be_repeated(self) -> bool:
        """Whether held-out rows have told how many epochs are best."""
        return bool(self.model.heldout) and self.stop_reason in ("epochs", "patience")


class Trained(CallbackSupportMixin, Parameters):
    """An estimator whose model is trained by the kernels, here or by worker processes."""

    _course: Course
    _doubts: Sequence[tuple[str, type[Warning]]] = ()
    _model: Factorization | Logistic

    def _goes_on(self, partial: bool) -> bool:
        """Return whether this fit starts from the model that is there."""
        return (partial or self.warm_start) and hasattr(self, "_course")

    def _train(
        self,
        dataset: Dataset,
        wishes: Wishes,
        *,
        goes_on: bool,
        heard: dict[str, Any],
        change: Callable[[JobSpec], JobSpec] = lambda spec: spec,
    ) -> None:
        """Train on a data set and set what every fit leaves behind.

        What goes on from a model is trained in this process, whatever ``workers`` says. ``heard`` is
        what scikit-learn's callbacks get to see of the data.
        """
        own = dataset.location == IN_MEMORY
        with as_value_error():
            if goes_on:
                wishes = msgspec.structs.replace(wishes, workers=1)
            least = recipes.LEAST_STEPS[self._kind] if own else 0
            spec = change(plan_job(wishes, dataset, least_steps=least))
            stop = msgspec.structs.replace(spec.stop, least_gain=float(self.tol))
            spec = msgspec.structs.replace(spec, stop=stop)
        here = spec.workers == 1
        self._trained_on, self._started_from = dataset.manifest.fingerprint, spec.seed
        self._doubts = [
            *((finding.text, DataWarning) for finding in dataset.manifest.notes),
            *((text, UserWarning) for text in self._ignored(stop, own)),
        ]
        shape = dataset.manifest.shape
        self._columns = shape.columns if isinstance(shape, Clicks) else None
        train = self._train_here if here else self._train_elsewhere
        step = self._course.step if goes_on else 0
        with Audience(self, spec, step=step, data=heard, fitted=self._preview if here else None) as audience:
            ended = train(spec, dataset, goes_on, audience.hear)
            self.heldout_, self.stop_reason_ = ended.model.heldout, ended.stop_reason
            epochs = self.n_iter_ = max(1, round(ended.epochs))
            if own and self.refit and not goes_on and ended.can_be_repeated:
                self.n_iter_ = max(1, round(audience.epochs_before(ended.model.step)))
                again = train(*self._of_all_rows(spec, dataset, self.n_iter_), False, lambda record: False)
                if again.stop_reason == "diverged":
                    self.stop_reason_ = "diverged"
            self.n_steps_ = self._course.step
            self._settle()
            audience.finish(self.stop_reason_, epochs, self.heldout_)
        self.loss_curve_, self.validation_scores_ = audience.losses, audience.scores or None
        self.best_validation_score_ = next((-value for value in self.heldout_.values()), None)

    def _ignored(self, stop: Stop, own: bool) -> Iterator[str]:
        """Yield what there is to say of parameters that were given and do nothing in this fit."""
        if self.tol and stop.patience is None:
            yield "tol has no effect where nothing ends a fit early: give n_iter_no_change as well"
        if self.validation_fraction is not None and not own:
            yield "validation_fraction has no effect on a data set, from which rows are held out already"

    @staticmethod
    def _of_all_rows(spec: JobSpec, dataset: Dataset, epochs: int) -> tuple[JobSpec, Dataset]:
        """Return the same training for so many epochs on all rows, those that were held out among them."""
        dataset = of_all_rows(dataset)
        spec = msgspec.structs.replace(
            spec,
            fingerprint=dataset.manifest.fingerprint,
            rows=dataset.manifest.rows,
            held_out=0,
            stop=Stop(epochs=epochs),
        )
        return spec, dataset

    def _train_here(self, spec: JobSpec, dataset: Dataset, goes_on: bool, hear: Hear) -> FitEnd:
        course = grow(self._course, spec.model, spec.seed) if goes_on else begin(spec.model, spec.seed)
        self._course, self._model = course, spec.model
        ending = train_here(spec, dataset, course, clock=SystemClock(), listen=hear)
        return FitEnd(ending.stop_reason, ending.last.epoch, ending.model)

    def _train_elsewhere(self, spec: JobSpec, dataset: Dataset, goes_on: bool, hear: Hear) -> FitEnd:
        """Train with worker processes; a data set in memory is put into a temporary folder for them."""
        with tempfile.TemporaryDirectory(prefix="mlless-") as folder, as_value_error():
            if dataset.location == IN_MEMORY:
                dataset = store_dataset(dataset, Path(folder) / "data")
                spec = msgspec.structs.replace(spec, dataset=dataset.address)
            run = run_job(spec, dataset, Path(folder) / "run", listen=hear, keeps=False)
            tables = read_artifact(run.place).tables
        summary = run.summary
        # The last step moves nothing.
        self._course, self._model = resume(spec.model, summary.steps - 1, tables), spec.model
        return FitEnd(
            summary.stop_reason, summary.epochs, Choice(summary.model_step, summary.heldout, summary.restored)
        )

    def _warn(self, *, partial: bool = False) -> None:
        """Tell whoever has called ``fit`` what is to doubt in it, and that training went astray."""
        for text, kind in () if partial else self._doubts:
            warnings.warn(text, kind, stacklevel=3 + WRAPPED)
        if self.stop_reason_ == "diverged":
            message = (
                "training diverged, the best model before that is kept: scale the data or lower learning_rate"
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=3 + WRAPPED)

    def _settle(self) -> None:
        """Set the fitted attributes from the course."""
        tables = {table.shape.name: table.shared for table in self._course.replica.tables}
        for name, value in self._fitted(tables).items():  # views: they go along with what is learnt later
            setattr(self, name, value)

    def _preview(self) -> dict[str, Any]:
        """Return the fitted attributes as if the fit had stopped now."""
        return {"n_steps_": self._course.step, **self._fitted(self._course.replica.snapshot())}

    def _fitted(self, tables: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        raise NotImplementedError

    def _artifact(self, ids: RatingIds | None, extras: Arrays, notes: dict[str, Any]) -> Artifact:
        """Return the model as a file holds it, with all that is needed to go on from it."""
        course = self._course
        memory: dict[str, NDArray[np.generic]] = {}
        if course.remembers:
            for table in course.replica.tables:
                memory[f"{table.shape.name}.state"] = table.state.copy()
                memory[f"{table.shape.name}.last"] = table.last.copy()
        given = {name: plain(value) for name, value in self.get_params(deep=False).items()}
        parameters = {n: v for n, v in given.items() if v is None or isinstance(v, bool | int | float | str)}
        told = msgspec.json.encode(
            {
                "class": type(self).__name__,
                "parameters": parameters,
                "step": course.step,
                "fitted": {name: getattr(self, name) for name in _UNKNOWN},
                **notes,
            }
        ).decode()
        return Artifact(self._description(), course.replica.snapshot(), ids, {**memory, **extras}, told)

    def _description(self) -> Description:
        return Description(
            FORMAT, mlless.__version__, self._model, self._trained_on, self._started_from, self._columns
        )

    def _save(self, path: Location, artifact: Artifact) -> None:
        write_artifact(place_of(path), artifact)

    @classmethod
    def _load(cls, path: Location) -> tuple[Self, Artifact, dict[str, Any]]:
        """Return an estimator with the model in the folder ``path``, the file, and its notes."""
        artifact = read_artifact(place_of(path))
        model = artifact.description.model
        kind = "mf" if isinstance(model, Factorization) else "lr"
        if kind != cls._kind:
            raise ValueError(f"{path}: {cls.__name__} needs a model of kind {cls._kind}, found {kind}")
        notes = msgspec.json.decode(artifact.notes) if artifact.notes else {}
        known = cls._get_param_names()
        found = notes.get("parameters", {})
        estimator = cls(**{name: value for name, value in found.items() if name in known})
        estimator._course = resume(model, int(notes.get("step", 0)), artifact.tables)
        estimator._recall(artifact.extras)
        estimator._model, estimator._trained_on = model, artifact.description.trained_on
        estimator._columns = artifact.description.columns
        estimator._started_from = artifact.description.seed
        for name, value in {**_UNKNOWN, **notes.get("fitted", {})}.items():
            curve = isinstance(value, list)  # JSON has no NaN: there is nothing in its place
            setattr(estimator, name, [math.nan if one is None else one for one in value] if curve else value)
        estimator.n_steps_ = estimator._course.step
        return estimator, artifact, notes

    def _recall(self, extras: Arrays) -> None:
        """Take the optimizer's state from a file, if it holds one that fits."""
        tables = self._course.replica.tables
        for table in tables:
            state, last = extras.get(f"{table.shape.name}.state"), extras.get(f"{table.shape.name}.last")
            if state is None or last is None or state.shape != table.state.shape or len(last) != len(state):
                return
            table.state[:], table.last[:] = state, last
        self._course.remembers = True

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_steps_")
