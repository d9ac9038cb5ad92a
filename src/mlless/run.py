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

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training: where its files are, a folder or a URL, and its summary."""

    place: Place
    summary: Summary

    @property
    def location(self) -> str:
        """Where the files are, as it was given."""
        return str(self.place)

    def __repr__(self) -> str:
        heldout = ", ".join(f"{name} {value:.4f}" for name, value in self.summary.heldout.items())
        return f"<Run {self.location}: {self.summary.steps} steps, {heldout or 'nothing held out'}>"

    def __fspath__(self) -> str:
        """Return the location: a run can be given wherever its folder is asked for."""
        return self.location

    @property
    def bill(self) -> Bill | None:
        """What the run cost by its tariff, item by item; None without one."""
        return self.summary.bill

    def model(self) -> Predictor:
        """Return the trained model, ready to score."""
        return Predictor(read_artifact(self.place), self.place)

    @overload
    def history(self, *, frame: Literal[False] = False) -> list[StepRecord]: ...

    @overload
    def history(self, *, frame: Literal[True]) -> pandas.DataFrame: ...

    def history(self, *, frame: bool = False) -> list[StepRecord] | pandas.DataFrame:
        """Return the record of every step; as a ``frame`` of pandas, one row a step.

        Its columns are the fields of ``StepRecord``; for what these hold in turn ``times_wait``,
        ``heldout_rmse``, ``decision_action`` and their like. What a step has not is NaN.
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
        """The run's folder; UsageError if it is in an object store."""
        if not isinstance(self.place, Directory):
            raise UsageError("this run has no folder on this machine", where=self.location)
        return self.place.path
