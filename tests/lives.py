"""Jobs in virtual time whose supervisor dies, and which are resumed from what is left in their run's place.

What writes into the place and reads from it does so for a driver, too: RunFiles, RunSafe and Left.
The place is in memory. What a thread writes into it in real time is there after a while of virtual time.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from unittest.mock import patch

from mlless.artifact import MODEL, read_artifact
from mlless.channels import opening
from mlless.channels.ports import Bytes, KeyValueStore
from mlless.closing import Leavers
from mlless.data.dataset import Dataset
from mlless.data.memory import MemoryObjects
from mlless.driver import plan_resume
from mlless.errors import UsageError
from mlless.job import JobSpec
from mlless.locations import Prefix
from mlless.mark import Mark
from mlless.membership import Schedule
from mlless.records import StepRecord
from mlless.report import files, left, safe
from mlless.report.files import RunFiles
from mlless.report.history import CHECKPOINT, SUMMARY, decoded, is_finished, stored_history, whole_lines
from mlless.report.keeper import APART, SHARE, Keeper
from mlless.report.lease import Hold
from mlless.report.left import Left, fresh, resuming
from mlless.report.safe import RunSafe
from mlless.simulation.conditions import Durations
from mlless.simulation.faults import SUPERVISOR, Blow, Faults, draw
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.roles import Killed, Role
from mlless.simulation.trace import Trace
from mlless.stopping import Score

PLACE = Prefix("s3", "virtual", "run")
MOST = 4  # lives of a job, in the last of which its supervisor does not die
RATE = 0.25  # of the trials


@dataclass(frozen=True)
class Fate:
    """What befalls a job over its lives.

    Each but the first begins with so many ``workers``, or None for those of before, and has ``faults`` of its
    own. What is written into the run's place is there after ``lag`` seconds.
    """

    faults: tuple[Faults, ...]
    workers: tuple[int | None, ...]
    lag: float


def fate_of(seed: int, workers: int, first: Faults, *, steps: int) -> Fate | None:
    """Return the fate of a job, whose first life has faults already; None for one that has a single life."""
    dice = random.Random(f"the lives of {seed}")
    if dice.random() >= RATE:
        return None
    others = dice.random() < 0.3
    faults, counts = [first], [None]
    while len(faults) < MOST and (len(faults) == 1 or dice.random() < 0.5):
        begin, end = dice.choice(((0, 20), *2 * [(20, (workers + 6) * steps)]))
        blow = Blow("kill", dice.randrange(begin, max(end, begin + 1)), dice.random() < 0.5)
        faults[-1] = replace(faults[-1], blows={**faults[-1].blows, SUPERVISOR: blow})
        if others and dice.random() < 0.7:
            workers = dice.randint(1, 5)
            counts.append(workers)
        else:
            counts.append(None)
        faults.append(draw(seed + 1_000_003 * len(faults), workers, calls=8 * steps, seconds=0.3 * steps))
    return Fate(tuple(faults), tuple(counts), dice.choice((0.0, 0.0, 0.3, 3.0)))


@dataclass
class Life:
    """One life of a job: what it trained, what came and went, and the steps that it heard of.

    ``score`` is that of the best model that was there as it began, as that model's file has it. It went on
    from the ``mark``.
    """

    spec: JobSpec
    faults: Faults
    leavers: Leavers
    trace: Trace = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    score: Score | None = None
    mark: Mark | None = None
    done: Simulation | None = None
    role: Role | None = None
    dead: bool = False

    def now(self) -> float:
        """Return the time of its supervisor."""
        return self.role.now() if self.role else 0.0


class Objects(MemoryObjects):
    """The run's place, to which who is dead writes no more."""

    def __init__(self) -> None:
        super().__init__()
        self.life: Life | None = None

    def put(self, path: str, data: Bytes) -> None:
        """Keep ``data``; the supervisor may die before or after it."""
        with self._acting() as alive:
            if alive:
                super().put(path, data)

    def delete(self, paths: Iterable[str]) -> None:
        """Forget the objects; the supervisor may die before or after it."""
        with self._acting() as alive:
            if alive:
                super().delete(paths)

    @contextmanager
    def _acting(self) -> Iterator[bool]:
        life = self.life
        if life is None or life.dead or life.role is None:
            yield life is None or not life.dead
            return
        try:
            with life.role.acting():
                yield True
        except Killed:
            life.dead = True
            raise


class _Late(Keeper):
    """A Keeper whose thread has done its work after a while of virtual time, or once it is waited for."""

    def __init__(
        self,
        life: Life,
        lag: float,
        write: Callable[[], int],
        *,
        apart: float = APART,
        share: float = SHARE,
    ) -> None:
        super().__init__(write, life.now, apart=apart, share=share)
        self._lag, self._due = lag, None

    def go_on(self) -> None:
        if self._due is not None and self._now() >= self._due:
            self._join(0.0)
        super().go_on()

    def _begin(self) -> None:
        if self._wanted != self.step and self._due is None:
            self._due = self._now() + self._lag
            if not self._lag:
                self._join(0.0)

    def _join(self, deadline: float) -> None:
        if self._due is not None:
            self._due = None
            self._work()


def _score() -> Score | None:
    return read_artifact(PLACE).description.score


class History:
    """All lives of a job, and the place in which it has left its files."""

    def __init__(self, fate: Fate, dataset: Dataset, durations: Durations, limit: float | None) -> None:
        self.objects, self.lives = Objects(), list[Life]()
        self._fate, self._dataset, self._durations, self._limit = fate, dataset, durations, limit

    def run(self, spec: JobSpec, leavers: Leavers) -> Simulation | None:
        """Run the job to its end, whatever its supervisor dies of on the way; None if it cannot be resumed.

        That is so of a run that has a model, and no checkpoint, and of one whose time is used up.
        """
        with patch.object(opening, "open_remote", lambda place: self.objects), ExitStack() as patches:
            for module in (files, left):
                patches.enter_context(patch.object(module, "locked", lambda *_, **__: nullcontext(Hold())))
            for faults, workers in zip(self._fate.faults, self._fate.workers, strict=True):
                life = Life(spec, faults, leavers)
                self.lives.append(life)
                self.objects.life = None
                try:
                    if len(self.lives) == 1:
                        return self._live(life, None)
                    if is_finished(PLACE):  # it died of nothing but its last words
                        self.lives.pop()
                        return self.lives[-1].done
                    life.score = _score() if MODEL in self.objects.names() else None
                    with resuming(PLACE) as what:
                        return self._live(life, self._resumed(life, what, workers))
                except Killed:
                    life.dead = True
                except UsageError as error:
                    if not self._may_refuse(life.spec, error):
                        raise
                    self.lives.pop()
                    return None
        raise AssertionError("it has died in the life in which it was not to")

    def _resumed(self, life: Life, what: Left, workers: int | None) -> Left:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "one worker (publishes nothing|waits for nobody)")
            options = {} if workers is None else {"workers": workers}
            plan = plan_resume(what, options, self._dataset)
        life.spec = plan.spec
        return plan.left

    def _live(self, life: Life, what: Left | None) -> Simulation:
        spec, dataset = life.spec, self._dataset
        schedule = Schedule.of(spec, [file.rows for file in dataset.manifest.train])

        def late(write: Callable[[], int], **rule: float) -> Keeper:
            return _Late(life, self._fate.lag, write, **rule)

        with patch.object(files, "Keeper", late), patch.object(safe, "Keeper", late):
            self.objects.life = life
            with RunFiles(PLACE, spec, dataset, left=what) as kept:
                start = what.start(spec, schedule) if what else fresh(spec, schedule)
                life.mark = start.mark

                def open_safe(role: Role, store: KeyValueStore) -> RunSafe:
                    life.role = role
                    return RunSafe(kept, store, start)

                def hear(record: StepRecord) -> None:
                    life.records.append(record)
                    kept.hear(record)

                try:
                    life.done = simulate(
                        spec,
                        dataset,
                        self._durations,
                        leavers=life.leavers,
                        listen=hear,
                        faults=life.faults,
                        trace=life.trace,
                        limit=self._limit,
                        start=start,
                        safe=open_safe,
                    )
                    kept.end(life.done.outcome, life.done.tables)
                    kept.close(life.done.outcome, 0.0, life.done.bill)
                except Killed:
                    life.dead = True
                    raise
        return life.done

    def _may_refuse(self, spec: JobSpec, error: UsageError) -> bool:
        """Return whether a run is rightly refused that is to be resumed."""
        names = self.objects.names()
        if "no checkpoint to go on from" in str(error):
            return CHECKPOINT not in names and (MODEL in names or SUMMARY not in names)
        return spec.stop.max_time is not None and "has used up what `max_time` allows" in str(error)

    @property
    def written(self) -> list[StepRecord]:
        """The records of the history in the run's place, also of steps that were taken again."""
        return decoded(whole_lines(stored_history(self.objects)))
