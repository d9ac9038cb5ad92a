"""PURE: what functions publish in a job: who merges it for all, and when nobody needs it any more.

If the pattern of movement has mergers, a step has two rounds. Once all members have reported, each shard of
rows goes to one of the members at work. It adds the pieces of all and stores the sum. Once all sums are
there, the commit names them. Pieces stay until then, because the heir of a merger that is lost adds them
again.

A shard stays with its merger while that is there, because the merger keeps what it has not sent of the sums.
Before another one merges the shard, as planned, the merger sends all of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain

import msgspec

from mlless.errors import MLLessError
from mlless.instructions import Instruction, Send
from mlless.keys import ROWS, merged_key, model_key, pieces, update_key
from mlless.losses import silent
from mlless.messages import FromWorker, FunctionId, Merge, Merged, Plan, Report, Substituted


class Updates:
    """The updates of the open step and those before, each cut into ``shards``; 0: nobody merges for others.

    Mergers ``keep`` something of their sums, or send them as they are. ``litter`` are keys that nobody needs
    once the open step is closed.
    """

    def __init__(self, shards: int, *, keep: bool = False) -> None:
        self._shards, self._keep = shards, keep
        self.litter: list[str] = []
        self._before: dict[int, list[str]] = {}  # keys of steps before, which may still be read
        self._mergers: dict[int, int] = {}  # by shard the worker that has merged it last, and may keep some
        self._asked: dict[int, tuple[FunctionId, float]] = {}  # by shard who merges it, and since when,
        self._merged: dict[int, Merged] = {}  # and of those that are merged who has done so
        self._whole: set[int] = set()  # shards of which then nothing is kept
        self.published: tuple[FunctionId, ...] = ()  # the functions with an update, once all have reported
        self._needed = False  # that there are sums

    def merge(
        self, plan: Plan, reports: Iterable[Report], at_work: Collection[FunctionId], now: float
    ) -> Iterator[Instruction]:
        """Have each shard merged by one of those at work, who have all reported the step."""
        self.published = tuple((one.worker, one.generation) for one in reports if one.published)
        leave = self._keep and not set(plan.flush).isdisjoint(self._mergers.values())
        self._needed = self._shards > 0 and (bool(self.published) or leave)
        functions = dict(at_work)
        loads = Counter(dict.fromkeys(functions, 0))
        loads.update(worker for worker in self._assigned.values() if worker in loads)

        def least() -> int:
            """Return the least load of those that stay."""
            return min((load for one, load in loads.items() if one not in plan.flush), default=0)

        for shard in range(self._shards if self._needed and functions else 0):
            if shard in self._asked or shard in self._merged:
                continue
            worker = self._mergers.get(shard)
            if worker not in functions:
                worker = min(functions, key=lambda one: (one in plan.flush, loads[one], one))
                loads[worker] += 1
            if worker in plan.flush or loads[worker] > least() + 1:
                self._whole.add(shard)
                loads[worker] -= 1
            who = worker, functions[worker]
            self._asked[shard] = who, now
            yield Send(Merge(plan.step, shard, self.published, shard in self._whole), (who,))

    @property
    def _assigned(self) -> dict[int, int]:
        """The worker of each shard that has one."""
        return self._mergers | {shard: who for shard, ((who, _), _) in self._asked.items()}

    @property
    def are_merged(self) -> bool:
        """Whether all is there that a commit of the open step needs."""
        return not self._needed or len(self._merged) == self._shards

    @property
    def mergers(self) -> tuple[FunctionId, ...]:
        """Who has merged the shards, in their order; none if there was nothing to merge."""
        return tuple((one.worker, one.generation) for _, one in sorted(self._merged.items()))

    def hear(self, message: Merged, step: int) -> None:
        """Take in that a shard is merged, unless another one was asked for it, or that is told again."""
        who, _ = self._asked.get(message.shard, (None, 0.0))
        if message.step == step and who == (message.worker, message.generation):
            del self._asked[message.shard]
            self._merged[message.shard] = message
            self._mergers[message.shard] = message.worker

    def whole(self, report: Report) -> Report:
        """Return a member's report on the open step with what it has moved as a merger."""
        if not self._merged:
            return report
        done = [one for one in self._merged.values() if one.worker == report.worker]
        return msgspec.structs.replace(
            report,
            bytes_in=report.bytes_in + sum(one.bytes_in for one in done),
            bytes_out=report.bytes_out + sum(one.bytes_out for one in done),
        )

    def discard(self, step: int, who: FunctionId) -> None:
        """Take in that what a function has stored for others in a step, or may yet store, is for nobody."""
        self.litter += [*pieces(step, who, self._shards), model_key(ROWS, step + 1, who)]

    def outdate(self, step: int, keys: Iterable[str]) -> None:
        """Take in that nobody needs these keys once all have merged a step; till then they may be written."""
        self._before.setdefault(step, []).extend(keys)

    def fence_off(self, message: FromWorker, reports: Callable[[int], Mapping[int, Report]]) -> None:
        """Discard what a function tells of that no longer counts, unless it has told so before in time.

        ``reports`` tells those that were taken on a step.
        """
        report = message.report if isinstance(message, Substituted) else message
        if isinstance(report, Report):
            who = report.worker, report.generation
            taken = reports(report.step).get(report.worker)
            used = taken is not None and taken.generation == report.generation
            if not used and update_key(report.step, who) not in self._before.get(report.step, ()):
                self.discard(report.step, who)
        elif isinstance(report, Merged) and self._merged.get(report.shard) != report:
            self.litter.append(merged_key(report.step, (report.worker, report.generation), report.shard))

    def lose(self, step: int, who: FunctionId) -> int:
        """Take in that a function is lost: what it was to merge goes to another one.

        Return of how many shards that is lost which it had kept of their sums.
        """
        for shard in [shard for shard, (one, _) in self._asked.items() if one == who]:
            del self._asked[shard]
            self._whole.discard(shard)
            self.litter.append(merged_key(step, who, shard))
        own = [shard for shard, worker in self._mergers.items() if worker == who[0]]
        for shard in own:
            del self._mergers[shard]
        return len(set(own) - (self._whole & self._merged.keys())) if self._keep else 0

    def close(self, step: int, merged: int) -> tuple[str, ...]:
        """Return what nobody needs any more, as the open step is closed.

        Before they took their part in it all had merged so many steps.
        """
        over = [one for one in self._before if one < merged]
        done = (*chain.from_iterable(self._before.pop(one) for one in over), *self.litter)
        used = [key for who in self.published for key in pieces(step, who, self._shards)]
        used += [merged_key(step, who, shard) for shard, who in enumerate(self.mergers)]
        self.outdate(step, used)
        self.litter = []
        for shard in self._whole:
            self._mergers.pop(shard, None)
        self._open()
        return done

    def _open(self) -> None:
        """Open a step."""
        self._asked, self._merged, self._whole = {}, {}, set()
        self.published, self._needed = (), False

    def rewind(self, step: int, reports: Iterable[Report]) -> None:
        """Take in that the open step is given up, and all that there is with it: these ``reports``."""
        given_up = [
            key for one in reports for key in pieces(one.step, (one.worker, one.generation), self._shards)
        ]
        summed = [merged_key(step, (one.worker, one.generation), s) for s, one in self._merged.items()]
        self.litter += [*chain.from_iterable(self._before.values()), *given_up, *summed]
        self._before, self._mergers = {}, {}
        self._open()

    def overdue(self, step: int, patience: float, now: float) -> Iterator[tuple[FunctionId, MLLessError]]:
        """Yield the mergers whose time is over, each with its error."""
        for who, since in self._asked.values():
            if now - since > patience:
                yield who, silent(who[0], step)
