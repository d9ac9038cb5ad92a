from __future__ import annotations

import doctest

import pytest

from mlless.billing.amount import money
from mlless.report import wording
from mlless.report.wording import count, duration, metrics, size


def test_examples():
    assert doctest.testmod(wording).failed == 0


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [
        (1, "rating", "1 rating"),
        (0, "row", "0 rows"),
        (2, "mini-batch", "2 mini-batches"),
        (30, "epoch", "30 epochs"),
        (10_000, "", "10,000"),
    ],
)
def test_counts(number, thing, text):
    assert count(number, thing) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (371_000_000, "371 MB"), (2.5e12, "2.5 TB")],
)
def test_sizes(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (3600, "1 h 00 min"), (7322, "2 h 02 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_metrics_keep_their_names():
    assert metrics({"rmse": 0.85}) == "rmse 0.8500"


@pytest.mark.parametrize(
    ("dollars", "text"),
    [(0, "$0.00"), (1234.5, "$1234.50"), (0.5, "$0.500"), (0.04, "$0.0400"), (2.72e-5, "$0.0000272")],
)
def test_money(dollars, text):
    assert money(dollars) == text
