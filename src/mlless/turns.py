"""Lets systems take turns at a job, and goes on with a comparison that was stopped.

Every turn is a process of its own, so that its CPU seconds and its memory are those of one run. Repetitions
are interleaved, and begin with another system each: what a machine does besides befalls all alike. A run
that is there is not made again.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlless.baselines import cirrus, itself, lambdaml, pytorch, pywren, single, siren
from mlless.baselines.contract import System
from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset, open_dataset
from mlless.deployment import Deployment
from mlless.driver import unheard
from mlless.errors import DatasetError, MissingObject, MLLessError, UsageError
from mlless.locations import Location, place_of
from mlless.options import nearest
from mlless.planning import Contestant, read_plan
from mlless.recipes import workers_of
from mlless.report.history import read_history, read_summary
from mlless.report.recorded import Recorded
from mlless.report.standing import Standing, median_run, standing
from mlless.runtimes.hosted import module_command
from mlless.simulation.running import run_in_world
from mlless.simulation.world import World
from mlless.wishes import Wishes

SYSTEMS: Mapping[str, System] = {
    **itself.SYSTEMS,
    **lambdaml.SYSTEMS,
    **cirrus.SYSTEMS,
    **pytorch.SYSTEMS,
    **siren.SYSTEMS,
    **pywren.SYSTEMS,
    **single.SYSTEMS,
}
PLAN = "plan.json"
INTERRUPTED = 130  # as shells report it
_OVER = ("failed", "running", "interrupted")  # of runs that are to be made again


class Plan(msgspec.Struct, frozen=True):
    """A comparison: on which data, who takes part, where, how many times; for real without a ``world``."""

    dataset: str
    fingerprint: str
    deployment: Deployment
    contestants: tuple[Contestant, ...]
    repetitions: int
    world: World | None = None


class Turn(msgspec.Struct, frozen=True):
    """One run of a comparison, as its process is told."""

    contestant: Contestant
    repetition: int
    dataset: str
    deployment: Deployment
    out: str
    world: World | None = None


class Told(NamedTuple):
    """Where a comparison stands: at the turn of this ``number`` of all ``turns``, of which ``left`` follow.

    ``came`` is None while the turn is taken, then its run, or why there is none.
    """

    turn: Turn
    number: int
    turns: int
    left: int
    came: Recorded | str | None


class Failed(msgspec.Struct, frozen=True):
    """Why a turn has no result."""

    error: str


def contestants(
    wishes: Wishes,
    dataset: Dataset,
    names: Sequence[str] = (),
    plan: str | Path | None = None,
    *,
    world: World | None = None,
) -> tuple[list[Contestant], list[str]]:
    """Return who takes part, and what there is to say about those who do not.

    Without names, or a plan in TOML with a table for each contestant, all systems take part that train on
    such data.
    """
    wishes = msgspec.structs.replace(wishes, workers=workers_of(wishes, dataset.manifest))
    kind = "mf" if dataset.manifest.kind == "ratings" else "lr"
    every = [name for name, system in SYSTEMS.items() if kind in system.kinds]
    wanted = [Contestant(name, name, wishes) for name in names or (() if plan else every)]
    wanted += read_plan(str(plan)).contestants(wishes) if plan else []
    return admitted(wanted, dataset, world)


def admitted(
    wanted: Sequence[Contestant], dataset: Dataset, world: World | None
) -> tuple[list[Contestant], list[str]]:
    """Return who of those can take part, and what is to be said of those who cannot.

    Those that are real alone have no part in a virtual comparison.
    """
    kind = "mf" if dataset.manifest.kind == "ratings" else "lr"
    for name, times in Counter(one.name for one in wanted).items():
        if times > 1 or not re.fullmatch(r"[\w.-]+", name):
            found = f"{name}, {times} times" if times > 1 else name
            raise UsageError("not a name for a contestant", expected="letters, digits, . and -", found=found)
    taking, notes, unfit = [], [], list[UsageError]()
    for one in wanted:
        if one.system not in SYSTEMS:
            raise UsageError(f"no such system: {one.system}", cure=nearest(one.system, list(SYSTEMS)))
        system = SYSTEMS[one.system]
        # What is played has no need of a library.
        needed = {} if world is not None and system.reach else system.packages
        missing = [pip for module, pip in needed.items() if not importlib.util.find_spec(module)]
        if kind not in system.kinds:
            why = f"it does not train on {dataset.manifest.kind}"
        elif world is not None and system.real:
            why = f"it has no part in a virtual world: {system.real}"
        elif world is not None and system.reach and world.machines is None:
            why = f"the world {world.name} has no machines that reach one another"
        elif missing:
            why = f"not installed: pip install {' '.join(missing)}"
        elif system.priced and one.wishes.tariff is None:
            why = "it needs prices: name a --tariff"
        elif (error := _unfit(system, one.wishes, dataset)) is not None:
            unfit.append(error)
            why = error.as_typed
        else:
            taking.append(one)
            own = [name for name in system.keeps if getattr(one.wishes, name) != getattr(Wishes(), name)]
            notes += [f"without effect on {one.name}: {', '.join(own)}"] if own else []
            continue
        notes.append(f"left out {one.name}: {why}")
    if not taking:
        told = UsageError(f"no system can take part: {'; '.join(notes)}")
        raise unfit[0] if len(unfit) == len(wanted) else told
    return taking, notes


def _unfit(system: System, wishes: Wishes, dataset: Dataset) -> UsageError | None:
    """Return why a system cannot do what it is asked for, before any turn is taken."""
    with warnings.catch_warnings(action="ignore"):  # they come with the turn
        try:
            system.plan(wishes, dataset)
        except UsageError as error:
            return error
    return None


def compare(
    plan: Plan, out: Location, *, overwrite: bool, tell: Callable[[Told], object]
) -> tuple[Standing, list[Recorded]]:
    """Take all turns that are missing; return how the contestants stand, and the median run of each.

    ``tell`` is called for every turn, when it begins and when it is over.
    """
    place = place_of(out)
    _check_plan(plan, str(place), overwrite)
    runs: dict[str, dict[int, Recorded]] = {}
    notes = [f"times and money are virtual, those of the world {plan.world.name}"] if plan.world else []
    turns = list(_turns(plan, str(place)))
    there = [None if overwrite else _recorded(turn) for turn in turns]
    for number, (turn, done) in enumerate(zip(turns, there, strict=True), 1):
        name, came = turn.contestant.name, done
        if done is None:
            told = Told(turn, number, len(turns), there[number:].count(None), None)
            tell(told)
            error = _take(turn)
            came = _recorded(turn)
            tell(told._replace(came=came or error or "it was interrupted"))
            if came is None:
                notes.append(f"{name}, repetition {turn.repetition}: {error or 'it was interrupted'}")
        if came is not None:
            runs.setdefault(name, {})[turn.repetition] = came
    if not runs:
        raise UsageError("no turn has come to its end", found="; ".join(notes))
    found = standing(runs, notes)
    return found, [runs[name][median_run(of).repetition] for name, of in found.outcomes.items()]


def _check_plan(plan: Plan, out: str, overwrite: bool) -> None:
    """Keep the plan beside the runs; UsageError if other runs are there than it would make."""
    objects = open_objects(place_of(out))
    try:
        before = msgspec.json.decode(objects.get(PLAN), type=Plan)
    except MissingObject:
        before = None
    except msgspec.DecodeError as error:
        raise UsageError(
            "not a comparison of this release", where=f"{out}/{PLAN}", found=str(error)
        ) from error
    if before is None and (found := objects.names()):
        raise UsageError(
            "not a comparison's folder, so nothing is written to it",
            where=out,
            found=", ".join(sorted(found)[:3]),
            cure="choose another --out",
        )
    if before is not None and not overwrite:
        wishes = {one.name: one for one in before.contestants}
        other = [one.name for one in plan.contestants if wishes.get(one.name, one) != one]
        there = before.fingerprint, before.deployment, before.world
        if other or there != (plan.fingerprint, plan.deployment.bare(), plan.world):
            elsewhere = "another data set, deployment or world"
            raise UsageError(
                "another comparison is here",
                where=out,
                found=f"other settings of {', '.join(other)}" if other else elsewhere,
                cure="choose another --out, or add --overwrite",
            )
    kept = msgspec.structs.replace(plan, deployment=plan.deployment.bare())
    objects.put(PLAN, msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")


def _turns(plan: Plan, out: str) -> Iterator[Turn]:
    for repetition in range(1, plan.repetitions + 1):
        first = (repetition - 1) % len(plan.contestants)
        for one in (*plan.contestants[first:], *plan.contestants[:first]):
            run = f"{out}/runs/{one.name}-{repetition}"
            yield Turn(one, repetition, plan.dataset, plan.deployment, run, plan.world)


def _recorded(turn: Turn) -> Recorded | None:
    """Return the run of a turn, under the contestant's name; None if there is none that came to its end."""
    place = place_of(turn.out)
    try:
        summary = read_summary(place)
        if summary.stop_reason in _OVER:
            return None
        return Recorded(turn.contestant.name, place.address, summary, read_history(place))
    except (MissingObject, DatasetError, msgspec.DecodeError):
        return None


def _take(turn: Turn) -> str | None:
    """Take a turn in a process of its own; return its error, if it has come to nothing."""
    process = subprocess.Popen(module_command(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(msgspec.json.encode(turn) + b"\n")
        process.stdin.flush()
        said = process.stdout.read()  # until it ends; a Ctrl-C reaches it, too, and ends its job in order
    if said:
        return msgspec.json.decode(said, type=Failed).error
    return f"its process has ended with code {process.returncode}" if process.returncode else None


def main() -> None:
    """Take the turn that standard input tells of; end it in order once that is closed."""
    told = b""
    while not told.endswith(b"\n"):
        told += os.read(0, 1 << 16)
    answer = os.dup(1)
    os.dup2(2, 1)  # what a library prints is none

    def watch() -> None:
        """End this process in order once standard input is closed."""
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    try:
        _run(msgspec.json.decode(told, type=Turn))
    except MLLessError as error:
        os.write(answer, msgspec.json.encode(Failed(error.as_typed)))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run(turn: Turn) -> None:
    one, dataset = turn.contestant, open_dataset(turn.dataset)
    system, deployment, out = SYSTEMS[one.system], turn.deployment, place_of(turn.out)
    spec = system.plan(one.wishes, dataset)
    if turn.world is None:
        system.run(one.system, spec, dataset, out, deployment=deployment, listen=unheard)
        return
    play, world = system.play(spec, dataset, deployment), system.placed(turn.world)
    run_in_world(play, one.system, spec, dataset, out, world=world, deployment=deployment, listen=unheard)
