"""What every system has in common: how its jobs are planned, and that its functions start fast."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlless.baselines import pywren
from mlless.baselines.contract import System
from mlless.data.dataset import Dataset
from mlless.wishes import Wishes

LIGHT = [f"mlless.baselines.{name}" for name in ("cirrus", "lambdaml", "pywren", "single")]


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_function_imports_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"pyarrow", "pandas", "scipy", "sklearn", "typer", "rich", "matplotlib"} & set(loaded.split())
    assert "msgspec" in loaded.split()


def test_a_system_s_own_wishes_go_over_those_of_a_user(ratings: Dataset) -> None:
    wishes = Wishes(workers=3, sync="isp", merge="sum", factors=7)
    spec = pywren.SYSTEMS["pywren"].plan(wishes, ratings)
    assert (spec.workers, spec.model.factors) == (3, 7)
    assert (spec.sync.significance, spec.sync.merge) == (0.0, "mean")


def test_who_meets_over_no_server_pays_for_none(ratings: Dataset) -> None:
    wishes = Wishes(tariff="published-ibm")
    servers = {
        served: System(about="", served=served).plan(wishes, ratings).tariff.servers
        for served in (True, False)
    }
    assert len(servers[True]) == 2
    assert servers[False] == ()
