"""Smoothing, knees, fitted curves and speeds."""

from __future__ import annotations

import numpy as np
import pytest
from unit.autotuner.curves_of import falling

from mlless.autotuner.curves import EVALUATIONS, fit_local, fit_reference
from mlless.autotuner.knee import CALLS, published_knee, relative_knee
from mlless.autotuner.smoothing import slopes, smooth
from mlless.autotuner.steptime import IGNORED, fit_speed
from mlless.autotuner.tail import fit_tail


class TestSmoothing:
    def test_it_is_the_mean_of_both_exponential_averages(self) -> None:
        values = np.random.default_rng(0).normal(size=300)
        decay = 1 - 2 / 21

        def average(series: np.ndarray) -> np.ndarray:
            top = bottom = 0.0
            found = []
            for value in series:
                top, bottom = top * decay + value, bottom * decay + 1
                found.append(top / bottom)
            return np.array(found)

        expected = (average(values) + average(values[::-1])[::-1]) / 2
        assert smooth(values) == pytest.approx(expected, abs=1e-8)

    def test_a_constant_stays_and_a_line_keeps_its_slope_in_the_middle(self) -> None:
        assert smooth(np.full(50, 3.0)) == pytest.approx(3.0)
        assert slopes(0.5 * np.arange(1000.0))[500] == pytest.approx(0.5, rel=1e-6)


class TestKnee:
    def test_the_published_one_is_where_the_slope_gets_above_its_threshold(self) -> None:
        losses = np.concatenate([np.linspace(1.0, 0.5, 200), np.full(100, 0.5)])
        knee = published_knee(losses)
        assert knee is not None
        assert 195 <= knee <= 280
        assert published_knee(losses[:190]) is None

    def test_it_is_confirmed_once_it_has_stayed(self) -> None:
        losses = np.concatenate([np.linspace(1.0, 0.5, 200), np.full(300, 0.5)])
        found = [published_knee(losses[:n]) for n in range(100, 500)]
        first = next(n for n, knee in enumerate(found) if knee is not None)
        assert found[:first] == [None] * first
        assert all(knee is not None for knee in found[-100:])

    def test_the_relative_one_does_not_mind_scales(self) -> None:
        losses = falling(300, noise=0.003)
        knee = relative_knee(losses)
        assert knee is not None
        assert relative_knee(100 * losses) == knee
        assert 10 < knee < 200

    def test_a_line_a_plateau_and_a_rise_have_none(self) -> None:
        for losses in (np.linspace(1, 0.5, 200), np.full(200, 0.7), np.linspace(0.5, 1, 200)):
            assert relative_knee(losses) is None

    def test_it_comes_a_few_steps_after_what_is_seen_of_it(self) -> None:
        losses = np.concatenate([np.linspace(1.0, 0.5, 50), np.full(100, 0.5)])
        first = next(n for n in range(20, 150) if relative_knee(losses[:n]) is not None)
        assert first >= 50 + CALLS


class TestFits:
    def test_the_published_curve_is_found_again(self) -> None:
        t = np.arange(1.0, 301)
        losses = 1 / (0.05 * t**0.58 + 1.58) + 0.49
        curve = fit_reference(t, losses)
        assert curve is not None
        assert curve.error < 0.001
        for ahead in (350, 400, 500):
            true = 1 / (0.05 * ahead**0.58 + 1.58) + 0.49
            assert curve.at(ahead) == pytest.approx(true, rel=0.005)

    def test_the_local_form(self) -> None:
        t = np.arange(1.0, 61)
        losses = 1 / (0.0001 * t**2 + 0.01 * t + 1.5) + 0.3
        curve = fit_local(t, losses)
        assert curve is not None
        assert curve.at(80) == pytest.approx(1 / (0.64 + 0.8 + 1.5) + 0.3, rel=0.02)

    @pytest.mark.parametrize("noise", [0.002, 0.02])
    def test_noise_is_borne_25_to_200_steps_ahead(self, noise: float) -> None:
        losses = falling(600, exponent=0.8)
        known = falling(400, exponent=0.8, noise=noise)
        curve = fit_reference(np.arange(1.0, 401), known)
        assert curve is not None
        for ahead in (425, 500, 600):
            assert curve.at(ahead) == pytest.approx(losses[ahead - 1], rel=0.03)

    def test_too_few_points_are_no_curve(self) -> None:
        losses = falling(40)
        assert fit_reference(np.arange(1.0, 8), losses[:7]) is None
        losses[5:] = np.nan
        assert fit_reference(np.arange(1.0, 41), losses) is None

    def test_evaluations_are_bounded_whatever_is_to_be_fitted(self) -> None:
        random = np.random.default_rng(1)
        for _ in range(20):
            losses = np.abs(random.normal(size=2000)) ** random.integers(1, 6)
            for fit in (fit_reference, fit_local):
                curve = fit(np.arange(1.0, 2001), losses)
                assert curve is None or curve.evaluations <= EVALUATIONS


class TestTail:
    def test_a_logarithm_is_found_again(self) -> None:
        progress = np.arange(1.0, 201)
        tail = fit_tail(progress, 3.0 - 0.4 * np.log(progress))
        assert tail is not None
        assert (tail.level, tail.slope) == pytest.approx((3.0, -0.4))
        assert tail.error == pytest.approx(0.0, abs=1e-9)
        assert tail.progress_at(3.0 - 0.4 * np.log(500.0)) == pytest.approx(500.0)

    def test_only_the_last_half_counts(self) -> None:
        progress = np.arange(1.0, 201)
        losses = np.where(progress <= 100, 99.0, 3.0 - 0.4 * np.log(progress))
        tail = fit_tail(progress, losses)
        assert tail is not None
        assert tail.slope == pytest.approx(-0.4)

    def test_it_looks_far_ahead(self) -> None:
        progress = np.arange(1.0, 2001)
        losses = 1 / (0.05 * progress**0.58 + 1.58) + 0.49  # as published
        tail = fit_tail(progress[:200], losses[:200])
        assert tail is not None
        assert tail.progress_at(losses[599]) == pytest.approx(600, rel=0.1)

    def test_a_loss_that_does_not_fall_has_none(self) -> None:
        progress = np.arange(1.0, 101)
        assert fit_tail(progress, np.full(100, 0.5)) is None
        assert fit_tail(progress, progress) is None
        assert fit_tail(progress[:15], -progress[:15]) is None


class TestSpeed:
    def course(self, counts: tuple[int, ...], steps: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        members = np.repeat(np.array(counts, float), steps)
        return members, 1 / (4.438 - 0.2425 * members), np.tile(np.arange(float(steps)), len(counts))

    def test_the_published_line_is_found_again(self) -> None:
        speed = fit_speed(*self.course((10, 9, 8)))
        assert speed is not None
        assert (speed.base, speed.slope) == pytest.approx((4.438, -0.2425))
        assert (speed.least, speed.most) == (8, 10)
        assert speed.at(5) == pytest.approx(4.438 - 5 * 0.2425)

    def test_outliers_evaluations_and_the_first_steps_after_a_change_do_not_count(self) -> None:
        members, seconds, settled = self.course((10, 9))
        seconds[settled < IGNORED] *= 3
        seconds[[10, 30]] *= 7
        seconds[[12, 33]] = np.nan
        speed = fit_speed(members, seconds, settled)
        assert speed is not None
        assert speed.at(10) == pytest.approx(4.438 - 2.425)
        assert speed.at(9) == pytest.approx(4.438 - 9 * 0.2425)

    def test_one_number_of_workers_tells_only_what_merging_takes(self) -> None:
        members, seconds, settled = self.course((10,))
        plain = fit_speed(members, seconds, settled)
        assert plain is not None
        assert plain.at(9) == plain.at(10) == pytest.approx(2.013)
        merging = fit_speed(members, seconds, settled, merging=0.09)
        assert merging is not None
        assert 1 / merging.at(9) == pytest.approx(1 / 2.013 - 0.01)

    def test_fewer_workers_are_never_taken_to_be_slower(self) -> None:
        members, _, settled = self.course((10, 9))
        speed = fit_speed(members, np.where(members == 10, 1.0, 2.0), settled)
        assert speed is not None
        assert speed.slope == 0.0

    def test_nothing_seen_yet(self) -> None:
        members, seconds, settled = self.course((10,), steps=6)
        assert fit_speed(members, seconds, settled) is None
