"""Sparse logistic regression: a table of features and a one-row table of the intercept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlless import kernels
from mlless.job import Adagrad, Logistic, Nesterov
from mlless.kernels.arrays import ClicksArrays, Floats, Ids, Rule, Sent
from mlless.messages import Sums
from mlless.models.base import BatchArrays, Filter, Moment
from mlless.models.optimizers import ITSELF, move_rows, rule_of, settle_decay
from mlless.replica import Replica, TableShape

# Scores are counted in bins of log-odds, which leave the histogram's AUC within 1e-5 of the exact one.
BINS, _WIDEST = 2048, 16.0


class LogisticModel:
    """The model of a ``Logistic`` spec."""

    def __init__(self, spec: Logistic) -> None:
        self.spec = spec
        self.shapes = (TableShape("features", spec.features, 1), TableShape("intercept", 1, 1))

    @property
    def null_loss(self) -> float:
        """The entropy of a label."""
        size = abs(self.spec.intercept)
        rarer = 1.0 / (1.0 + math.exp(min(size, 700.0)))
        return math.log1p(math.exp(-size)) + rarer * size

    def initial(
        self, generator: np.random.Generator, rows: Mapping[str, int] | None = None
    ) -> dict[str, Floats]:
        """Return zero weights and the log-odds of the training part."""
        features, intercept = (s.rows if rows is None else rows[s.name] for s in self.shapes)
        return {
            "features": np.zeros((features, 1), np.float32),
            "intercept": np.full((intercept, 1), self.spec.intercept, np.float32),
        }

    def rules(self, optimizer: Adagrad | Nesterov, moment: Moment, samples: int) -> tuple[Rule, Rule]:
        """Return how features move, and the intercept, which is free of L2.

        Damping grows as measured: with members^(1/4), of the mean gradient.
        """
        damping = moment.members**0.25 / samples
        rule = rule_of(optimizer, moment, damping=damping, decay=self.spec.l2)
        return rule, rule._replace(decay=0.0)

    def step(
        self,
        replica: Replica,
        batch: BatchArrays,
        optimizer: Adagrad | Nesterov,
        moment: Moment,
        publish: Filter,
    ) -> tuple[float, tuple[Sent, ...]]:
        """Step along the batch's mean gradient; L2 in proximal form for the steps a row has missed."""
        return self._step(replica, batch, self.rules(optimizer, moment, batch.samples)[0], publish)

    def gradient(
        self, replica: Replica, batch: BatchArrays, optimizer: Adagrad | Nesterov, publish: Filter
    ) -> tuple[float, tuple[Sent, ...]]:
        """Leave the mean gradient's direction as the residual of the rows that the batch names."""
        return self._step(replica, batch, ITSELF, publish)

    def move(
        self,
        replica: Replica,
        directions: Sequence[tuple[Ids, Floats]],
        optimizer: Adagrad | Nesterov,
        moment: Moment,
        samples: int,
    ) -> bool:
        """Move features and intercept along directions, L2 included."""
        return move_rows(replica.tables, directions, self.rules(optimizer, moment, samples))

    def _step(
        self, replica: Replica, batch: BatchArrays, rule: Rule, publish: Filter
    ) -> tuple[float, tuple[Sent, ...]]:
        assert isinstance(batch, ClicksArrays)
        features, intercept = replica.tables
        loss, *sent = kernels.logistic_step(
            features.rows,
            intercept.rows,
            batch,
            rule,
            publish.threshold,
            publish.modes[0],  # no row of clicks is anybody's own
            *publish.outboxes,
        )
        return loss, (sent[0], sent[1])

    def settle(self, replica: Replica, optimizer: Adagrad | Nesterov, moment: Moment, samples: int) -> bool:
        """Apply the L2 pull of the steps that passed a row by."""
        if self.spec.l2 > 0:
            settle_decay(replica.tables[0], self.rules(optimizer, moment, samples)[0])
        return self.spec.l2 > 0

    def evaluate(self, replica: Replica, batch: BatchArrays) -> Sums:
        """Return log loss (weighted) and the histograms of scores."""
        assert isinstance(batch, ClicksArrays)
        features, intercept = replica.tables
        margins = np.empty(len(batch.labels), np.float32)
        kernels.logistic_margins(features.rows, intercept.rows, batch, margins)
        if not np.isfinite(margins).all():
            return Sums(len(margins), math.nan, (0,) * BINS, (0,) * BINS)
        clicked, wide = batch.labels > 0, margins.astype(np.float64)
        losses = np.logaddexp(0.0, wide) - clicked * wide
        if batch.weights is not None:
            losses *= batch.weights
        bins = np.clip((wide / _WIDEST + 1.0) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        positives = np.bincount(bins[clicked], minlength=BINS).tolist()
        negatives = np.bincount(bins[~clicked], minlength=BINS).tolist()
        return Sums(len(margins), float(losses.sum()), tuple(negatives), tuple(positives))

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return log loss, and AUC from the histograms (ties within a bin count half)."""
        if not sums.samples:
            return {}
        negatives, positives = np.array(sums.negatives, np.float64), np.array(sums.positives, np.float64)
        below = np.cumsum(negatives) - negatives
        pairs = negatives.sum() * positives.sum()
        auc = float((positives * (below + negatives / 2)).sum() / pairs) if pairs else 0.5
        return {"log_loss": sums.loss / sums.samples, "auc": auc}


def probabilities(
    margins: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return 1 / (1 + exp(-margin)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -margins))


def area_under_curve(clicked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], scores: Floats) -> float:
    """Return the exact AUC: the share of (positive, negative) pairs in order, ties counting half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct score, from 1
    positives = int(clicked.sum())
    negatives = len(clicked) - positives
    if not positives or not negatives:
        return 0.5
    total = float(ranks[inverse[clicked]].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)
