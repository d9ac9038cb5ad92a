"""Jobs in virtual time survive what befalls them, or fail for a reason: hundreds, each from a seed."""

from __future__ import annotations

import pytest
import trials


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_whatever_befalls_a_job_its_rows_and_its_model_are_those_of_the_undisturbed_one(first):
    wrong = {seed: complaints for seed in range(first, first + 50) if (complaints := trials.attempt(seed)[1])}
    assert not wrong
