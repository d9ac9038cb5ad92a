"""PURE: the supervisor's mind. An event in, instructions out; no socket, thread or clock.

A worker has an id and, for each launch, a generation. Only the newest counts, and while it is to take over
from the one before, both. What an older one says or writes is passed over. A step is closed once each of its
members has reported it, or another in its name, so every mini-batch is used once an epoch; see ``updates``.

Who is lost is launched anew. A member that has reported the open step donates its model, which is the same
bits on all, and the newcomer takes the part that is missing. If nobody is left to donate, the job goes back
to its newest checkpoint, or to its start. A function whose time limit is near hands over to a successor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlless import keys
from mlless.closing import Verdict
from mlless.errors import ChannelError, JobError, MLLessError
from mlless.instructions import (
    Close,
    Delete,
    Dismiss,
    Done,
    Event,
    Exited,
    Fail,
    Forget,
    Instruction,
    Launch,
    Passed,
    Rewind,
    Send,
    Started,
)
from mlless.job import JobSpec
from mlless.keeping import Keeping, keepers_of, result_of
from mlless.keys import model_key
from mlless.losses import REPEATS, Losses, died, failed, out_of_step, silent, unfit
from mlless.mark import Mark
from mlless.members import Member, Members, Patience, Stage
from mlless.membership import Schedule, told
from mlless.messages import (
    Abort,
    Begin,
    Commit,
    Donate,
    Donated,
    Failure,
    FromWorker,
    FunctionId,
    HandedOver,
    Hello,
    Merged,
    Origin,
    Report,
    Substitute,
    Substituted,
    Times,
)
from mlless.pace import Pace
from mlless.steps import Steps
from mlless.succession import Succession
from mlless.updates import Updates


@dataclass
class Ledger:
    """One job's ledger: the job goes on from a ``mark``. ``best_key`` is as in ``Keeping``.

    Its times are those of the caller, in seconds, and must not go back.
    """

    spec: JobSpec
    schedule: Schedule
    version: str
    mark: Mark
    best_key: str = ""
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.spec.deadlines, self.spec.ahead)
        self._steps = Steps(self.schedule, self.spec.ahead, self.mark)
        self.pace.expect(self._steps.planned)
        self._keeping = Keeping(self.mark, self.best_key, self.spec.checkpoint_every)
        self._origin: Origin | None = self.mark.origin
        self._donor: FunctionId | None = None
        self._members = Members()  # those of the open step
        self._opened = self._heard = self._asked_donor = 0.0
        self._disturbed = False  # by a loss or a hand-over: the open step tells nothing of the usual pace
        self._updates = Updates(self.spec.shards, keep=self.spec.sync.merged_significance is not None)
        self._losses = Losses(self.spec.workers)
        self._trouble: MLLessError = JobError("no worker is left")  # the newest
        self._succession = Succession(self.pace, self.spec.workers, self.spec.ahead)
        self._handovers = 0  # that the open step has begun with
        self._started = self._ended = False

    @property
    def step(self) -> int:
        """The open step."""
        return self._steps.plan.step

    @property
    def functions(self) -> tuple[FunctionId, ...]:
        """All functions that count."""
        return (*self._members.functions, *self._succession.functions)

    def is_silent(self, now: float) -> bool:
        """Return whether a worker counts as lost by now, for it is silent."""
        return bool(self._silent(now))

    def restored(self) -> None:
        """Take in that the store had lost all models, and has the newest checkpoint again: in one part."""
        self._keeping.best = None
        self._keeping.mark = self._keeping.mark.in_one_part
        self._origin = self._keeping.mark.origin

    def start(self, now: float) -> list[Instruction]:
        """Return how the job begins."""
        self._opened = self._heard = now
        self._keeping.rhythm.begin(now)
        return list(self._launch(self._steps.plan.members, now))

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in an event; return what is to be done, in order."""
        if self._ended:
            return []
        done: list[Instruction] = []
        for instruction in self._handle(event, now):
            done.append(instruction)
            if isinstance(instruction, Done | Fail):  # nothing that would follow is done any more
                self._ended = True
                break
        return done

    def _handle(self, event: Event, now: float) -> Iterator[Instruction]:
        match event:
            case Verdict():
                yield from self._commit(event, now)
            case Passed():
                yield from self._pass(event, now)
            case Exited():
                who = event.worker, event.generation
                if self._counts(who) and not (event.done and self._succession.is_leaving(who)):
                    error = died(event, f"worker {event.worker} died in step {self.step}")
                    yield from self._lose(who, error, now)
            case _:
                self._heard = now
                if self._counts((event.worker, event.generation)):
                    yield from self._hear(event, now)
                else:
                    yield from self._fence_off(event)
        yield from self._mend(now)
        yield from self._advance(now)

    def _counts(self, who: FunctionId) -> bool:
        return self._members.is_newest(*who) or who in self._succession.functions

    def _hear(self, message: FromWorker, now: float) -> Iterator[Instruction]:
        who = message.worker, message.generation
        match message:
            case Report() if self._members.is_newest(*who):
                yield from self._take(message, now)
            case Hello() if (error := unfit(message, self.version)) is not None:
                yield Fail(error)
            case Failure():
                failure = failed(message, f"worker {message.worker} failed in step {max(message.step, 0)}")
                if message.exit_code in REPEATS:
                    yield Fail(failure)
                    return
                if message.exit_code == ChannelError.exit_code and self._members.is_fresh(who):
                    self._origin = None  # the store may have lost it
                    self._succession.lose_origin(message.worker)
                yield from self._lose(who, failure, now)
            case HandedOver() if self._succession.is_leaving(who):
                self._succession.receive(message, now)
                self._keeping.pass_on(who, (message.worker, self._members[message.worker].generation))
            case _ if who in self._succession.functions:
                yield from self._succession.hear(message, self._steps.planned, now)
            case Hello() if self._members[message.worker].stage is Stage.LAUNCHED:
                self._succession.greet(self._members[message.worker], message, now)
            case Donated():
                if self._donor == who and message.origin.step == self.step:
                    self._origin, self._donor = message.origin, None
                    self._updates.litter.append(message.origin.key)  # with the step its use is over
                else:
                    yield from self._decline(message.origin)
            case Merged():
                self._updates.hear(message, self.step)
            case Substituted():
                part = message.report
                if self._members.is_newest(part.worker, part.generation):
                    yield from self._take(part, now)

    def _fence_off(self, message: FromWorker) -> Iterator[Instruction]:
        """Send a function home whose place another one has, and clear away what it has written."""
        self._updates.fence_off(message, self._steps.reports_on)
        if isinstance(message, Donated | HandedOver):
            yield from self._decline(message.origin)
        if not isinstance(message, Failure):
            who = message.worker, message.generation
            yield Send(Abort("another function has taken this one's place"), (who,))

    def _decline(self, donation: Origin) -> Iterator[Instruction]:
        """Clear away a donation that comes too late; what is in use may be told of a second time."""
        if donation not in (self._origin, *self._succession.origins):
            yield Delete((donation.key,))

    def _take(self, report: Report, now: float) -> Iterator[Instruction]:
        """Take in a report of a member, or of another one in its name."""
        found = self._steps.under_way(report.step)
        if found is None and report.step > self.step:
            yield Fail(out_of_step(report, self.step))
        if found is None or report.worker in found[1]:
            return
        plan, told = found
        member = self._members[report.worker]
        told[report.worker] = self._succession.take(member, report, now)
        member.fresh = False
        if self._donor == (report.worker, report.generation):
            self._asked_donor = now  # it is ahead, and hears that it is asked once it waits
        yield from self._keeping.hear(report, self._steps.merged(plan))

    def _launch(self, workers: tuple[int, ...], now: float) -> Iterator[Instruction]:
        yield Launch(tuple(self._members.renew(worker, Stage.LAUNCHED, now) for worker in workers))

    def _lose(self, who: FunctionId, error: MLLessError, now: float) -> Iterator[Instruction]:
        """Take in that a function is lost; ``_mend`` then sees to it that another takes its place."""
        worker, self._trouble = who[0], error
        spare = self._succession.is_successor(who)
        if (self.spec.on_loss == "fail" and not spare) or self._losses.add(worker, now):
            yield Fail(error)
            return
        kept = 0 if spare else self._updates.lose(self.step, who)
        yield Dismiss(who, f"{error.what}: {error.found}" if error.found else error.what, kept)
        yield from self._keeping.lose(who)
        self._updates.outdate(*self._keeping.take_litter())
        if self._succession.lose(who):
            return
        self._disturbed = True
        if (step := self._steps.untold(worker)) is not None:
            self._updates.discard(step, who)
        if self._donor == who:
            self._donor = None
        for part, other in self._members.items():
            if other.substitute == worker and part in self._steps.missing:
                # What it may have written, or may yet write, is not what the next one writes.
                self._updates.discard(self.step, (part, other.generation))
                other.generation, other.substitute = self._members.next_generation(part), None
        others = self._steps.others(worker, shrink=self.spec.on_loss == "shrink")
        if not others.isdisjoint(self._members.at_work):
            self._members.renew(worker, Stage.SUBSTITUTED, now)
        elif self._succession.has(worker):
            self._members[worker] = self._succession.promote(worker, now)
        else:
            yield from self._launch((worker,), now)

    def _mend(self, now: float) -> Iterator[Instruction]:
        """See to it that all members without a report are at work, or another one in their place."""
        if not self._members.are_any_at_work:
            missing = self._steps.missing
            can_begin = self._origin is not None or self._succession.feeds(missing)
            if not (missing and can_begin):  # nobody is missing if all have reported and died
                yield from self._rewind(now)
        for worker in self._steps.missing:
            member = self._members[worker]
            if member.stage is Stage.THERE and not self._succession.is_awaited(worker):
                yield from self._begin(worker, member, now)
            elif member.stage is Stage.SUBSTITUTED and member.substitute is None:
                yield from self._substitute(worker, member, now)

    def _advance(self, now: float) -> Iterator[Instruction]:
        """Take the open step further: all are there, all have reported, all is merged."""
        if not self._started and len(self._members.at_work) == len(self._members):
            self._started, self._opened = True, now
            self._keeping.rhythm.begin(now)
            yield Started()
        plan, told = self._steps.plan, self._steps.reports
        if len(told) == len(plan.members):
            reports = [told[worker] for worker in plan.members]
            yield from self._updates.merge(plan, reports, tuple(self._members.at_work.items()), now)
            if self._updates.are_merged:
                yield from self._close(now)

    def _begin(self, worker: int, member: Member, now: float) -> Iterator[Instruction]:
        """Let a worker begin, or see to it that there is something to begin with."""
        origin = self._succession.origin(worker) or self._origin
        if origin is None:
            if self._donor is None and (donor := self._reported()) is not None:
                self._donor, self._asked_donor = donor, now
                yield Send(Donate(self.step), (donor,))
            return
        member.stage, member.since = Stage.AT_WORK, now
        yield Send(Begin(origin, self._steps.planned), ((worker, member.generation),))

    def _reported(self) -> FunctionId | None:
        """Return a member that waits for the commit of the open step, the lowest one."""
        return next((who for who in self._members.at_work.items() if who[0] in self._steps.reports), None)

    def _substitute(self, worker: int, member: Member, now: float) -> Iterator[Instruction]:
        """Find someone who takes a lost worker's part; the flush of one that is lost is empty."""
        if worker in self._steps.plan.flush:  # such a step is never one with an evaluation
            report = Report(worker, member.generation, self.step, 0, 0.0, False, True, 0, 0, 0, 0, 0, Times())
            yield from self._take(report, now)
        elif (other := self._reported()) is not None:
            member.substitute, member.since = other[0], now
            yield Send(Substitute(self.step, worker, member.generation), (other,))
        elif set(self._steps.missing) <= set(self._members.substituted):
            # All who could have are lost as well; there is an origin, or the job would have gone back.
            yield from self._launch((worker,), now)

    def _rewind(self, now: float) -> Iterator[Instruction]:
        """Go back to the newest checkpoint: nobody is left who has the model."""
        mark = self._keeping.mark
        if self._losses.add_return(mark.plan.step):
            yield Fail(self._trouble)
            return
        self._updates.rewind(self.step, self._steps.taken)
        self._steps.go_back(mark)
        self._origin, self._donor, self._handovers = mark.origin, None, 0
        self._succession.forget_handovers()
        yield Rewind(mark, self._keeping.best)
        members = self._steps.plan.members
        self._members.retain(set(members) - set(self._members.substituted))
        missing = tuple(worker for worker in members if worker not in self._members)
        if missing:
            yield from self._launch(missing, now)

    def _close(self, now: float) -> Iterator[Instruction]:
        plan, told, ahead = self._steps.plan, self._steps.reports, self._steps.ahead
        reports = tuple(self._updates.whole(told[worker]) for worker in plan.members)
        if not self._disturbed:
            self.pace.add(plan, now - self._opened, max(one.times.evaluate for one in reports))
        yield Close(plan, self._steps.following, reports, self._handovers, ahead[1:])

    def _commit(self, verdict: Verdict, now: float) -> Iterator[Instruction]:
        """Close the open step and open the next one."""
        plan = self._steps.plan
        published, mergers = self._updates.published, self._updates.mergers  # before these are closed
        done = self._updates.close(plan.step, self._steps.merged(plan))
        at_work = self._members.at_work
        if plan.last:
            yield Send(Commit(plan.step, published, (), end=True), tuple(at_work.items()))
            yield from self._succession.send_home()
            result = result_of(plan, self._steps.reports, owned=self.spec.owns_users)
            yield Done(plan.step, result, self._keeping.best, self._keeping.best_keys)
            return
        leaving = self._steps.leaving if self.spec.owns_users else ()
        self._steps.close(verdict, self._members.substituted)
        self.pace.expect(self._steps.planned)
        following, later = self._steps.plan, next(reversed(self._steps.ahead), None)
        handing, soon = self._succession.handing_over(self._members, following, later, now)
        if handing or soon or self._succession.is_near:
            self._steps.drain()
        if not self._steps.is_drained:
            handing = ()  # later, when nobody is ahead
        keepers = keepers_of(plan, following, at_work, owned=self.spec.owns_users)
        # Whoever is ahead has moved the rows that it owns on.
        marks = self._steps.is_drained or not self.spec.owns_users
        asked = self._keeping.ask(keepers, plan, self._steps.planned, verdict, now, marks=marks)
        if verdict.mark and not marks:
            self._steps.drain()
        plans = told(plan.owners, self._steps.planned)
        left = tuple(who for who in leaving if who[0] in following.flush and following.trainers)
        commit = Commit(plan.step, published, plans, *asked, handing, mergers=mergers, left=left)
        yield Send(commit, tuple(at_work.items()))
        yield Delete(done)
        if verdict.best and not asked[0]:
            yield Forget(self._keeping.best)
        self._members.retain(following.members)
        self._origin = self._donor = None
        self._losses.go_on()
        self._opened, self._disturbed, self._handovers = now, bool(handing), len(handing)
        self._updates.litter += [model_key(keys.HANDOVER, following.step, who) for who in handing]
        self._updates.litter += [model_key(keys.ROWS, following.step, who) for who in leaving]
        yield from self._succession.open_step(self._members, handing, soon, now)

    def _pass(self, event: Passed, now: float) -> Iterator[Instruction]:
        """Tell who is silent for too long; a job that is to end does not wait for such any more."""
        wait = 0.0 if event.late else self.pace.last_wait
        if (event.asked or event.late) and now - self._heard > wait:
            yield from self._give_up()
        for who, error in self._silent(now).items():
            yield from self._lose(who, error, now)

    def _give_up(self) -> Iterator[Instruction]:
        """End the job with the best model so far, if there is one."""
        if (best := self._keeping.best) is not None:
            yield Send(Abort("the job ends without a worker that is silent"), self.functions)
            yield Done(best.step, self._keeping.best_keys, best, self._keeping.best_keys, given_up=True)

    def _silent(self, now: float) -> dict[FunctionId, MLLessError]:
        """Return the functions whose time is over, each with its error."""
        usual, cold = self.pace.patience(self._steps.plan), self.pace.cold
        patience = Patience(self.step, usual, cold, self.spec.deadlines.start)
        late = dict(self._members.overdue(self._steps.reports, self._opened, patience, now))
        if self._donor is not None and now - self._asked_donor > usual:
            late[self._donor] = silent(self._donor[0], self.step)
        late |= dict(self._updates.overdue(self.step, usual, now))
        return late | dict(self._succession.overdue(patience, now))
