"""Who listens to a fit: callbacks of our own, and scikit-learn's where it has them (1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from mlless.records import StepRecord

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``method`` as it is: this scikit-learn has no callbacks."""
        return method


__all__ = ["Audience", "Callback", "CallbackSupportMixin", "with_callbacks"]


class Callback(Protocol):
    """What ``callbacks=[...]`` takes: objects with one or both of these methods.

    A method that returns True ends the fit in order, two steps later.
    """

    def on_step(self, record: StepRecord) -> bool | None:
        """Hear of a closed step."""
        ...

    def on_epoch(self, record: StepRecord) -> bool | None:
        """Hear of an epoch that has ended; ``record.heldout`` is that of the model then."""
        ...


class Audience:
    """All who listen to one fit."""

    def __init__(
        self,
        estimator: Any,
        callbacks: Sequence[Any],
        *,
        epochs: int,
        data: dict[str, Any],
        fitted: Callable[[], dict[str, Any]] | None,
    ) -> None:
        self._estimator, self._callbacks, self._data, self._fitted = estimator, callbacks, data, fitted
        self._last: StepRecord | None = None
        self._root: Any = None
        self._task: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=epochs)
            self._root.call_on_fit_task_begin(estimator=estimator, **data)
            self._begin_epoch()

    def hear(self, record: StepRecord) -> bool:
        """Pass a step on; return whether someone wants to stop."""
        epoch = self._last is not None and record.heldout is not None
        self._last = record
        stop = self._tell("on_step", record)
        if epoch:
            stop |= self._tell("on_epoch", record) | self._end_epoch()
            self._begin_epoch()
        return stop

    def finish(self, heldout: dict[str, float]) -> None:
        """Say that the fit has ended, with a model of these held-out metrics."""
        if self._last is not None:
            self._tell("on_epoch", msgspec.structs.replace(self._last, heldout=heldout))
        if self._root is not None:
            self._end_epoch()
            self._root.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=self._fitted, **self._data
            )

    def _tell(self, method: str, record: StepRecord) -> bool:
        answers = [getattr(one, method)(record) for one in self._callbacks if hasattr(one, method)]
        return any(answers)

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
