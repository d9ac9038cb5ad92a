"""Who listens to a fit: callbacks of our own, and scikit-learn's where it has them (1.9 and later)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from mlless.records import StepRecord

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


class Callback(Protocol):
    """What ``callbacks=[...]`` takes: objects with one or both of these methods.

    A plain function is taken as ``on_epoch``. What returns True ends the fit in order, two steps later.
    """

    def on_step(self, record: StepRecord) -> bool | None:
        """Hear of a closed step."""
        ...

    def on_epoch(self, record: StepRecord) -> bool | None:
        """Hear of an epoch that has ended; ``record.heldout`` is that of the model then.

        The last time is at the end of the fit, where it is that of the model that is kept.
        """
        ...


Hook = Callable[[StepRecord], bool | None]
_HOOKS = ("on_step", "on_epoch")


def hooks_of(callback: Any) -> dict[str, Hook]:
    """Return the hooks of a callback by name; TypeError if it has none, or one that no one calls."""
    named = {name for name in dir(callback) if name.startswith("on_") and callable(getattr(callback, name))}
    if not named and callable(callback) and not isinstance(callback, type):
        return {"on_epoch": callback}
    if not named or named.difference(_HOOKS) or isinstance(callback, type):
        found = ", ".join(sorted(named)) or "no such method"
        raise TypeError(
            "A callback must be a function, or an object with a method on_step(record), on_epoch(record) or "
            f"both. Got {callback!r} with {found}. scikit-learn's own callbacks are for set_callbacks."
        )
    return {name: getattr(callback, name) for name in named}


class Audience:
    """All who listen to one fit, and what it is remembered by: its curves."""

    def __init__(
        self,
        estimator: Any,
        *,
        epochs: int,
        data: dict[str, Any],
        fitted: Callable[[], dict[str, Any]] | None,
    ) -> None:
        self._estimator, self._data, self._fitted = estimator, data, fitted
        self._hooks = [hooks_of(callback) for callback in estimator.callbacks or ()]
        self._last: StepRecord | None = None
        self._over = False
        self.losses: list[float] = []
        self.scores: list[float] = []
        self._root: Any = None
        self._task: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=epochs)
            self._root.call_on_fit_task_begin(estimator=estimator, **data)
            self._begin_epoch()

    def hear(self, record: StepRecord) -> bool:
        """Pass a step on; return whether someone wants to stop."""
        last, self._last = self._last, record
        # The last step is nothing but an evaluation. One with an empty mini-batch goes on with the epoch.
        self._over = record.heldout is not None and last is not None and last.epoch == record.epoch
        stop = not self._over and self._tell("on_step", record)
        if last is None or record.heldout is None:
            return stop
        if not self._over or len(self.losses) < max(1, round(record.epoch)):
            self._note(last, record.heldout)
        stop |= self._tell("on_epoch", record) | self._end_epoch()
        if not self._over:
            self._begin_epoch()
        return stop

    def finish(self, epochs: int, heldout: dict[str, float]) -> None:
        """Say that the fit has ended after so many epochs, with a model of these held-out metrics.

        No one knows how the last epoch fared in which a training has diverged.
        """
        if self._last is not None and not self._over:
            if len(self.losses) < epochs:
                self._note(self._last, dict.fromkeys(heldout, math.nan))
            self._tell("on_epoch", msgspec.structs.replace(self._last, heldout=heldout))
        if self._root is not None:
            self._end_epoch()
            self._root.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=self._fitted, **self._data
            )

    def _note(self, last: StepRecord, heldout: dict[str, float]) -> None:
        """Add an epoch, whose last step was ``last``, to the curves."""
        loss = math.nan if last.train_loss is None else last.train_loss
        self.losses.append(loss)
        self.scores += [-value for value in heldout.values()][:1]
        if self._estimator.verbose:
            metrics = "".join(f", {name} {value:.6g}" for name, value in heldout.items())
            print(f"epoch {len(self.losses)}: training loss {loss:.6g}{metrics}")

    def _tell(self, method: str, record: StepRecord) -> bool:
        answers = [hooks[method](record) for hooks in self._hooks if method in hooks]
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
