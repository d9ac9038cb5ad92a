"""What an experiment came to: courses of losses, and ratios of two of them."""

from __future__ import annotations

import numpy as np
import pytest

from mlless.planning import read_plan
from mlless.report.findings import Course, _ratio, published_at


def course(*points: tuple[float, float]) -> Course:
    seconds, losses = np.array(points, float).T
    return Course(seconds, seconds / 100, losses)


STEEP, FLAT = course((0, 1.0), (10, 0.5), (20, 0.4)), course((0, 1.0), (100, 0.9), (200, 0.7))


def test_a_loss_is_on_the_line_between_two_steps() -> None:
    assert STEEP.at("seconds", 5) == pytest.approx(0.75)
    assert STEEP.at("dollars", 0.15) == pytest.approx(0.45)
    assert STEEP.at("seconds", 20.5) == pytest.approx(0.4)  # it came so near
    assert STEEP.at("seconds", 30) is None
    assert STEEP.arrival("seconds", 0.75) == pytest.approx(5)
    assert STEEP.arrival("seconds", 1.0) == 0.0
    assert STEEP.arrival("seconds", 0.39) is None


def test_published_losses_at_times_and_for_money() -> None:
    six, seven = (read_plan(f"middleware21-figure{n}").experiment for n in (6, 7))
    assert six is not None
    assert seven is not None
    assert published_at(six, "mf-ml-10m", "bsp", 75) == pytest.approx((0.919 + 0.846) / 2)
    assert published_at(six, "mf-ml-10m", "bsp", 461) is None
    # 36 cents buy MLLess 383 s, PyWren 424 s, and PyTorch more seconds than are known.
    assert 0.719 < published_at(seven, "mf-ml-10m", "bsp", 0.36) < 0.751  # type: ignore[operator]
    assert published_at(seven, "mf-ml-10m", "pywren", 0.36) == pytest.approx(1.060, abs=1e-3)
    assert published_at(seven, "mf-ml-10m", "pytorch", 0.36) is None
    assert published_at(seven, "mf-ml-10m", "isp-tuner", 0.36) is None


@pytest.mark.parametrize(
    ("kind", "expected"), [("speed", 200 / 6), ("economy", 200 / 6), ("progress", 0.6 / 0.3), ("rate", 1.0)]
)
def test_ratios(kind: str, expected: float) -> None:
    experiment = read_plan("middleware21-figure6").experiment
    assert experiment is not None
    made = type(experiment.ratios[0])(title="", kind=kind, of="a", against="b")  # type: ignore[arg-type]
    assert _ratio(made, {"a": STEEP, "b": FLAT}) == pytest.approx(expected)
    assert _ratio(made, {"a": STEEP}) is None
    if kind in ("speed", "economy"):
        assert _ratio(made, {"a": FLAT, "b": STEEP}) is None  # it never came there
