"""A finished training, to be looked at and used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import msgspec

from mlless.artifact import read_artifact
from mlless.billing.meter import Bill
from mlless.errors import UsageError, not_installed
from mlless.locations import Directory, Place
from mlless.prediction import Predictor
from mlless.records import StepRecord, Summary
from mlless.report.history import read_history
from mlless.report.wording import count

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training, as `mlless.train` returns it.

    Attributes
    ----------
    place : Place
        Where its files are: a folder, or a prefix in an object store.
    summary : Summary
        What came of it: metrics, times, bytes, why it stopped.
    """

    place: Place
    summary: Summary

    @property
    def location(self) -> str:
        """The folder or URL of its files, as it was given."""
        return str(self.place)

    def __repr__(self) -> str:
        heldout = ", ".join(f"{name} {value:.4f}" for name, value in self.summary.heldout.items())
        steps = count(self.summary.steps, "step")
        return f"<Run {self.location}: {steps}, {heldout or 'nothing held out'}>"

    def __fspath__(self) -> str:
        """Return the location, so that a run can be given wherever its folder can."""
        return self.location

    @property
    def bill(self) -> Bill | None:
        """What the run cost by its tariff, item by item; None if it had no tariff."""
        return self.summary.bill

    def model(self) -> Predictor:
        """Return the trained model, ready to score."""
        return Predictor(read_artifact(self.place), self.place)

    @overload
    def history(self, *, frame: Literal[False] = False) -> list[StepRecord]: ...

    @overload
    def history(self, *, frame: Literal[True]) -> pandas.DataFrame: ...

    def history(self, *, frame: bool = False) -> list[StepRecord] | pandas.DataFrame:
        """Return the record of every step, in a list, or as a frame of pandas.

        A ``frame`` has a row for each step and a column for each field of `StepRecord`. A field that has
        fields of its own becomes several columns, such as ``times_wait``, ``heldout_rmse`` and
        ``decision_action``. What a step does not have is NaN.
        """
        records = read_history(self.place)
        if not frame:
            return records
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise not_installed("a history as a frame", "pandas") from error
        rows = [
            {name: value for name, value in row.items() if name not in ("heldout", "decision") or value}
            for row in msgspec.to_builtins(records)
        ]
        return pandas.json_normalize(rows, sep="_", max_level=1)

    @property
    def folder(self) -> Path:
        """The folder of its files; UsageError if they are in an object store."""
        if not isinstance(self.place, Directory):
            raise UsageError("this run has no folder on this machine", where=self.location)
        return self.place.path
