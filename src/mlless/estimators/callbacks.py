"""Who listens to a fit: callbacks as of any training, and scikit-learn's from its release 1.9 on."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from mlless.job import JobSpec
from mlless.records import StepRecord
from mlless.tracking.callback import Beginning, Callback, Callbacks, Ending, telling

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    WRAPPED = 1
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``method`` as it is: this scikit-learn has no callbacks."""
        return method

    WRAPPED = 0  # calls between that of a method and its own code


__all__ = ["WRAPPED", "Audience", "Callback", "CallbackSupportMixin", "with_callbacks"]

_LOGGER = logging.getLogger("mlless.estimators")


class _Screen(logging.StreamHandler):  # type: ignore[type-arg]
    """Shows what is logged on standard output as it is now: a notebook has one for each cell."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Standard output."""
        return sys.stdout


_SCREEN = _Screen()


class Audience:
    """All who listen to one fit, and what it is remembered by: its curves.

    To be used as a context: callbacks hear of the end, whatever end that is.
    """

    def __init__(
        self,
        estimator: Any,
        job: JobSpec,
        *,
        step: int,
        data: dict[str, Any],
        fitted: Callable[[], dict[str, Any]] | None,
    ) -> None:
        self._estimator, self._data, self._fitted = estimator, data, fitted
        self._callbacks = Callbacks(estimator.callbacks or ())
        self._beginning = Beginning(job, step=step)
        self._stack = ExitStack()
        self.losses: list[float] = []
        self.scores: list[float] = []
        self._epochs = {step: 0.0}  # passes over the data before each step
        self._root: Any = None
        self._task: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=job.stop.epochs)
            self._root.call_on_fit_task_begin(estimator=estimator, **data)
            self._begin_epoch()

    def __enter__(self) -> Audience:
        self._stack.enter_context(telling(self._callbacks, self._beginning))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def hear(self, record: StepRecord) -> bool:
        """Pass a step on; return whether someone wants to stop."""
        told = self._callbacks
        self._epochs[record.step + 1] = record.epoch
        stop = told.hear(record)
        if told.before is None or not told.epoch_ended:
            return stop
        if not told.over or len(self.losses) < max(1, round(record.epoch)):
            self._note(told.before, record.heldout or {})
        stop |= self._end_epoch()
        if not told.over:
            self._begin_epoch()
        return stop

    def epochs_before(self, step: int) -> float:
        """Return how many passes over the data the fit had made before a step."""
        return self._epochs[step]

    def finish(self, stop_reason: str, epochs: int, heldout: dict[str, float]) -> None:
        """Say that the fit has ended after so many epochs, with a model of these held-out metrics.

        No one knows how the last epoch fared in which a training has diverged.
        """
        told = self._callbacks
        if told.last is not None and not told.over and len(self.losses) < epochs:
            self._note(told.last, dict.fromkeys(heldout, math.nan))
        told.finish(heldout)
        if self._root is not None:
            self._end_epoch()
            self._root.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=self._fitted, **self._data
            )
        told.end(Ending(stop_reason, heldout))

    def _note(self, last: StepRecord, heldout: dict[str, float]) -> None:
        """Add an epoch, whose last step was ``last``, to the curves."""
        loss = math.nan if last.train_loss is None else last.train_loss
        self.losses.append(loss)
        self.scores += [-value for value in heldout.values()][:1]
        metrics = "".join(f", {name} {value:.6g}" for name, value in heldout.items())
        text = f"epoch {len(self.losses)}: training loss {loss:.6g}{metrics}"
        _LOGGER.info("%s", text)
        if self._estimator.verbose:
            _SCREEN.handle(_LOGGER.makeRecord(_LOGGER.name, logging.INFO, __file__, 0, text, (), None))

    def _begin_epoch(self) -> None:
        if self._root is not None:
            self._task = self._root.subcontext(task_name="epoch")
            self._task.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def _end_epoch(self) -> bool:
        if self._task is None:
            return False
        task, self._task = self._task, None
        return bool(
            task.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=self._fitted, **self._data
            )
        )
