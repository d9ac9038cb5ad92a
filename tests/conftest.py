"""Small generated data sets that tests of all kinds share, and two profiles for hypothesis."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mlless.data.dataset import Dataset
from mlless.data.partition import partition
from mlless.data.synthetic import write_clicks, write_ratings

_common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.register_profile("same", _common, derandomize=True)  # a run tries the same examples as any other
settings.register_profile("explore", _common, derandomize=False, print_blob=True)  # make explore
settings.load_profile("same")

pytest_plugins = [
    "servers.aws",
    "servers.browser",
    "servers.emulator",
    "servers.rabbitmq",
    "servers.redis",
    "servers.s3",
    "servers.web",
]


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set of 12,000 generated ratings in 300 groups, a tenth held out."""
    folder = tmp_path_factory.mktemp("ratings")
    write_ratings(folder / "ratings.csv", users=300, items=200, rows=12_000, seed=1)
    return partition(folder / "ratings.csv", folder / "data")


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set of 6,000 generated clicks in 240 groups, a tenth held out."""
    folder = tmp_path_factory.mktemp("clicks")
    write_clicks(folder / "clicks.svm", rows=6_000, features=2_000, per_row=12, seed=1)
    return partition(folder / "clicks.svm", folder / "data")


@pytest.fixture
def channels() -> Iterator[Path]:
    """A place for the folders of embedded channels: its path is short enough for local sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="channels-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A place for a run."""
    return tmp_path / "run"
