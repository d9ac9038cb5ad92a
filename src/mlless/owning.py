"""The rows that one worker owns: it alone trains, keeps and scores them.

They are those of its groups. When a group changes hands, they pass through the store; those of an owner that
is lost are computed from its ratings and from what all share.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlless import checkpoint
from mlless.channels.ports import KeyValueStore
from mlless.checkpoint import Memory
from mlless.clock import Clock
from mlless.data.holding import Holding
from mlless.kernels.arrays import Ids, RatingsArrays
from mlless.membership import groups_of, owners_of
from mlless.messages import Origin, Plan
from mlless.models.base import Model
from mlless.models.factorization import FactorizationModel
from mlless.models.ridge import fit_users
from mlless.replica import Replica


class Estate:
    """The rows of one worker's groups, in a replica. Where no table is owned, ``rows`` is None."""

    def __init__(
        self, store: KeyValueStore, model: Model, replica: Replica, holding: Holding, clock: Clock
    ) -> None:
        self._store, self._model, self._replica, self._clock = store, model, replica, clock
        self._holding = holding
        self._owned = any(table.shape.owned for table in replica.tables)
        self._owners = b""
        self.rows: Ids | None = None

    def own(self, plan: Plan, worker: int) -> None:
        """Read the groups of a worker in a step: from now on their users are its own."""
        self._owners = plan.owners
        self._holding.own(groups_of(plan.owners, worker))
        if self._owned:
            self.rows = self._holding.users()

    def begin(self, plan: Plan, worker: int, origin: Origin) -> tuple[Memory, int]:
        """Start the replica with what a worker owns in a step; return as ``checkpoint.load_origin`` does."""
        loaded = checkpoint.load_origin(self._store, origin, self._replica, plan.batches, self.rows)
        if not origin.owned:
            self._compute(groups_of(plan.owners, worker), plan)
        return loaded

    def enter(self, plan: Plan, worker: int, left: Mapping[int, str]) -> int:
        """Own the groups of a worker in a step; return the bytes read for that.

        ``left`` says where owners of before have left their rows.
        """
        before = self._owners
        if plan.owners == before:
            return 0
        self.own(plan, worker)
        if self.rows is None:
            return 0
        size, gone = 0, []
        former = owners_of(before) if before else ()
        heritage = dict[int, str]()
        for group in groups_of(plan.owners, worker):
            owner = former[group] if before else None
            if owner is not None and owner in left:
                heritage[owner] = left[owner]
            elif owner != worker:
                gone.append(group)
        for key in heritage.values():
            arrays, read = checkpoint.read_part(self._store, key)
            checkpoint.take_rows(arrays, plan.batches, self._replica, self.rows)
            size += read
        self._compute(gone, plan)
        return size

    def _compute(self, groups: list[int] | tuple[int, ...], plan: Plan) -> None:
        """Compute the rows of groups whose owner is lost, for a step."""
        passes = plan.epoch + plan.part / plan.parts
        for batch in self._holding.whole(groups):
            assert isinstance(self._model, FactorizationModel), "users without items"
            assert isinstance(batch, RatingsArrays)
            fit_users(self._model, self._replica, batch, passes)
            self._clock.work("compute", batch.samples)
