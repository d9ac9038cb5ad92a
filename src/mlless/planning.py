"""Plans of comparisons, in TOML: who takes part with which settings, and whole experiments.

A table with a ``system`` is a contestant, and its other entries are settings of its own. A plan that has
``jobs`` is an experiment: it names the data as well, the world, and what has been published of it. Such plans
come with the package. One may be ``like`` another one: then it says only what is different.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlless.book import Book
from mlless.errors import UsageError
from mlless.options import declared, nearest
from mlless.wishes import Wishes

PLANS = Book("plan", "mlless", "plans")
_OWN = ("system", "label", "side", "hour")  # entries of a contestant that are no settings
_EXPERIMENT = ("title", "note", "world", "scale", "axis", "marks", "settings", "jobs", "ratios")

Table = dict[str, Any]
Side = Literal["published", "ours"]


class Contestant(msgspec.Struct, frozen=True):
    """Who takes part under which name: a system, and what it is asked for."""

    name: str
    system: str
    wishes: Wishes


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job of an experiment, and what is made up for it where the user names no data.

    That is so many ``rows``: ratings of ``users`` and ``items``, or clicks with so many ``features``. The
    ``settings`` are those of contestants on the ``published`` side. ``points`` are the published ones by
    contestant: seconds, and the training loss then.
    """

    title: str
    rows: int
    users: int = 0
    items: int = 0
    features: int = 0
    settings: dict[str, Any] = {}
    points: dict[str, list[tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        if bool(self.features) == bool(self.users and self.items):
            raise ValueError("a job has features, or users and items")


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is compared of two contestants, and what has been published of it, by job.

    ``speed`` and ``economy``: by how much sooner, or for how much less money, one came to the last loss of
    the one ``against``. ``rate``: its dollars a second against the other's. ``progress``: the share of the
    other's fall of the loss. ``why`` tells why it may be another one here.
    """

    title: str
    kind: Literal["speed", "economy", "rate", "progress"]
    of: str
    against: str
    published: dict[str, float] = {}
    why: str = ""


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Jobs, and in which world they are played; ``settings`` are those of all contestants.

    At a ``scale`` rows, users, items, features and mini-batches are so many times those of the plan. So is
    the speed of the world's cores and networks: time and money then stay what they are. ``marks`` are where
    losses are told, on the ``axis``: seconds or dollars. ``labels`` and ``sides`` are those of contestants,
    and ``hours`` what an hour of them has cost as published.
    """

    title: str
    note: str
    world: str
    scale: float = 1.0
    axis: Literal["seconds", "dollars"] = "seconds"
    marks: tuple[float, ...]
    settings: dict[str, Any] = {}
    jobs: dict[str, Work]
    ratios: tuple[Ratio, ...] = ()
    labels: dict[str, str] = {}
    sides: dict[str, Side] = {}
    hours: dict[str, float] = {}

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale is to be a number above 0, not {self.scale}")


class PlanFile(msgspec.Struct, frozen=True):
    """A plan as it was read: the tables of its contestants, and the experiment if it is one."""

    name: str
    tables: dict[str, Table]
    experiment: Experiment | None = None

    @property
    def title(self) -> str:
        """What files of it are called."""
        return Path(self.name).stem

    def contestants(
        self, wishes: Wishes, job: str = "", settings: Mapping[str, object] | None = None, scale: float = 1.0
    ) -> Iterator[Contestant]:
        """Yield the contestants: their own settings over those of the experiment, and these over ``wishes``.

        What a user has asked for by name, in ``settings``, goes over those of the experiment.
        """
        for name, table in self.tables.items():
            given: dict[str, Any] = {}
            if self.experiment is not None:
                given |= self._values(self.experiment.settings, "settings", scale)
                if self.experiment.sides[name] == "published":
                    given |= self._values(self.experiment.jobs[job].settings, f"jobs.{job}.settings", scale)
                given |= settings or {}
            own = {key: value for key, value in table.items() if key not in _OWN}
            given |= self._values(own, name, scale)
            yield Contestant(name, table["system"], msgspec.structs.replace(wishes, **given))

    def _values(self, table: Table, where: str, scale: float) -> dict[str, Any]:
        """Return settings in their types, at a scale."""
        options = {one.name: one for one in declared(Wishes)}
        for key in table:
            if key not in options:
                raise UsageError(
                    f"no such setting: {key}", where=f"{self.name}: {where}", cure=nearest(key, list(options))
                )
        values = {
            key: options[key].value(value, f"{self.name}: {where}.{key}") for key, value in table.items()
        }
        if "batch_size" in values:
            values["batch_size"] = max(1, round(values["batch_size"] * scale))
        return values


def read_plan(name: str) -> PlanFile:
    """Return a plan of the package by its name, or the one in the TOML file ``name``; UsageError if wrong."""
    tables = _tables(name)
    experiment = {key: tables.pop(key) for key in _EXPERIMENT if key in tables} if "jobs" in tables else None
    for contestant, table in tables.items():
        if not isinstance(table, dict) or not isinstance(table.get("system"), str):
            raise UsageError(
                "not a contestant",
                where=f"{name}: {contestant}",
                expected=f'[{contestant}] with system = "..."',
            )
    if experiment is None:
        return PlanFile(name, tables)
    experiment["labels"] = {key: table.get("label", key) for key, table in tables.items()}
    experiment["hours"] = {key: table["hour"] for key, table in tables.items() if "hour" in table}
    experiment["sides"] = {key: table.get("side", "ours") for key, table in tables.items()}
    try:
        return PlanFile(name, tables, msgspec.convert(experiment, Experiment))
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"not a plan: {error}", where=name) from error


def _tables(name: str) -> Table:
    """Return a plan as TOML has it, over the one that it is like."""
    try:
        tables: Table = tomllib.loads(_text(name))
    except ValueError as error:
        raise UsageError("not a plan in TOML", where=name, found=str(error)) from error
    if not isinstance(tables.get("like"), str):
        return tables
    return _over(_tables(tables.pop("like")), tables)


def _text(name: str) -> str:
    if name in PLANS.names():
        return PLANS.text(name)
    try:
        return Path(name).read_text("utf-8")
    except OSError as error:
        what = "there is no such plan" if isinstance(error, FileNotFoundError) else "the plan cannot be read"
        cure = f"name a file in TOML, with a table for each contestant, or {' or '.join(PLANS.names())}"
        raise UsageError(what, where=name, cure=cure) from error


def _over(below: Table, above: Table) -> Table:
    """Return tables with others laid over them, entry by entry."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged
