"""The one contract of who listens to a training, and the calls that keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from mlless.errors import hidden
from mlless.job import JobSpec
from mlless.records import FAILED, StepRecord, Summary


class Beginning(msgspec.Struct, frozen=True):
    """A training that begins.

    ``run`` is where its files are, None for a fit of an estimator. ``step`` is its first step. It is above 0
    where a run is resumed.
    """

    job: JobSpec
    run: str | None = None
    step: int = 0


class Ending(msgspec.Struct, frozen=True):
    """A training that has ended.

    ``stop_reason`` is that of ``Summary``: ``failed`` comes with the ``error``. ``running`` means that
    another process goes on with the job. ``heldout`` is that of the model that is kept.
    """

    stop_reason: str
    heldout: dict[str, float] = {}
    error: str | None = None


class Callback(Protocol):
    """What ``callbacks=[...]`` takes: objects with one or more of these methods.

    A plain function is taken as ``on_epoch``. A step or an epoch that returns True ends the training in
    order, two steps later. What a method raises ends it at once.
    """

    def on_begin(self, beginning: Beginning) -> object:
        """Hear that a training begins."""
        ...

    def on_step(self, record: StepRecord) -> object:
        """Hear of a closed step."""
        ...

    def on_epoch(self, record: StepRecord) -> object:
        """Hear of an epoch that has ended; ``record.heldout`` is that of the model then.

        The last time is at the end of the training, where it is that of the model that is kept.
        """
        ...

    def on_end(self, ending: Ending) -> object:
        """Hear that the training has ended, in whatever way."""
        ...


Hooks = dict[str, Callable[[Any], object]]
_HOOKS = ("on_begin", "on_step", "on_epoch", "on_end")


def hooks_of(callback: Any) -> Hooks:
    """Return the hooks of a callback by name; TypeError if it has none, or one that no one calls."""
    named = {name for name in dir(callback) if name.startswith("on_") and callable(getattr(callback, name))}
    if not named and callable(callback) and not isinstance(callback, type):
        return {"on_epoch": callback}
    if not named or named.difference(_HOOKS) or isinstance(callback, type):
        found = ", ".join(sorted(named)) or "no such method"
        raise TypeError(
            f"A callback must be a function, or an object with methods of these: {', '.join(_HOOKS)}. "
            f"Got {callback!r} with {found}. scikit-learn's own callbacks are for set_callbacks."
        )
    return {name: getattr(callback, name) for name in named}


class Callbacks:
    """All who listen to one training. ``epoch_ended``: the step that was heard last has ended an epoch."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self._hooks = [hooks_of(callback) for callback in callbacks]
        self._begun: list[Hooks] = []
        self.before: StepRecord | None = None  # the step before the last one
        self.last: StepRecord | None = None
        self.over = self.epoch_ended = False

    def begin(self, beginning: Beginning) -> None:
        """Say that the training begins; who has heard it will hear how it ends."""
        for hooks in self._hooks:
            if "on_begin" in hooks:
                hooks["on_begin"](beginning)
            self._begun.append(hooks)

    def hear(self, record: StepRecord) -> bool:
        """Pass a step on; return whether someone wants to stop."""
        last = self.before = self.last
        self.last = record
        # The last step is nothing but an evaluation. One with an empty mini-batch goes on with the epoch.
        self.over = record.heldout is not None and last is not None and last.epoch == record.epoch
        self.epoch_ended = last is not None and record.heldout is not None
        stop = not self.over and self._tell("on_step", record)
        return (self.epoch_ended and self._tell("on_epoch", record)) or stop

    def finish(self, heldout: dict[str, float]) -> None:
        """Tell of the last epoch, if no one has heard how it ended: a training that diverged does not say."""
        if self.last is not None and not self.over:
            self._tell("on_epoch", msgspec.structs.replace(self.last, heldout=heldout))

    def end(self, ending: Ending) -> None:
        """Say to all who have heard the beginning that the training has ended, once."""
        begun, self._begun = self._begun, []
        for hooks in begun:
            if "on_end" in hooks:
                hooks["on_end"](ending)

    def _tell(self, method: str, record: StepRecord) -> bool:
        answers = [hooks[method](record) for hooks in self._hooks if method in hooks]
        return any(answers)


@contextmanager
def telling(callbacks: Callbacks, beginning: Beginning) -> Iterator[None]:
    """Say that a training begins, and if it fails that it has; the caller says how it ends in order."""
    try:
        callbacks.begin(beginning)
        yield
    except BaseException as error:  # also an interrupt: a tracker is to close what it has opened
        text = hidden(str(error)) or type(error).__name__
        callbacks.end(Ending(FAILED, error=text))
        raise


def ending_of(summary: Summary) -> Ending:
    """Return how a run ended that has a summary."""
    return Ending(summary.stop_reason, summary.heldout, summary.error)
