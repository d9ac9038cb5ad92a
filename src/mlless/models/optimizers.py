"""How gradients move parameters. The compiled kernels apply these rules row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from mlless.job import Adagrad, Nesterov
from mlless.kernels.arrays import Floats, Ids, Outbox, Rule
from mlless.kernels.twin import ADAGRAD, MERGED, NESTEROV, change_rows
from mlless.models.base import Moment
from mlless.replica import Table

ITSELF = Rule(NESTEROV, 1.0, 0.0, 0.0, 0.0, 0)  # moves a row along its direction as it is
_NOTHING = Outbox(np.empty(0, np.uint32), np.empty((0, 1), np.uint8), np.empty(1, np.float32), 0)


def rule_of(optimizer: Adagrad | Nesterov, moment: Moment, *, damping: float, decay: float = 0.0) -> Rule:
    """Return the kernel's rule for one step.

    ``damping`` is the model's scale of the optimizer's, ``decay`` the L2 strength applied for each step
    since a row was last touched.
    """
    if isinstance(optimizer, Nesterov):
        return Rule(NESTEROV, optimizer.learning_rate, 0.0, optimizer.momentum, decay, moment.step)
    rate = optimizer.learning_rate * optimizer.fading**moment.epoch
    if optimizer.warmup:
        rate *= min(1.0, (moment.step + 1) / math.sqrt(moment.members))
    return Rule(ADAGRAD, rate, optimizer.damping * damping, 0.0, decay, moment.step)


def step_sizes(table: Table, rule: Rule) -> Floats:
    """Return by how much each entry would move along a gradient of 1; 0 where none was ever seen."""
    if rule.kind != ADAGRAD:
        return np.full_like(table.state, rule.rate)
    root = np.sqrt(table.state) + np.float32(rule.epsilon)
    return np.divide(np.float32(rule.rate), root, out=np.zeros_like(root), where=root > 0)


def settle_decay(table: Table, rule: Rule) -> None:
    """Apply the L2 pull that each row has missed since it was last touched, up to ``rule.step``.

    What a zero gradient would do to every row, without touching the optimizer's state.
    """
    missed = (rule.step - table.last).astype(np.float32)[:, None]
    shrink = np.float32(1) + step_sizes(table, rule) * np.float32(rule.decay) * missed
    table.residual[:] = (table.shared + table.residual) / shrink - table.shared
    table.last[:] = rule.step


def move_rows(
    tables: Iterable[Table], directions: Iterable[tuple[Ids, Floats]], rules: Iterable[Rule]
) -> bool:
    """Move the ``shared`` of rows of each table along a direction; return whether all of it is finite."""
    moved = [
        change_rows(table.rows, table.shape.columns, rows, direction, rule, 0.0, MERGED, _NOTHING)
        for table, (rows, direction), rule in zip(tables, directions, rules, strict=True)
    ]
    return all(one.finite for one in moved)
