"""The runtime interface emulator of AWS Lambda: a program, from the wheel of aws-sam-cli."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from servers.need import missing

_NAMES = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}
_FOLDER = Path(".venv", "rie", "samcli", "local", "rapid")


@pytest.fixture(scope="session")
def emulator_binary() -> Path:
    """The emulator that MLLESS_RIE names, or that ``make .venv/dev`` has fetched."""
    name = _NAMES.get(platform.machine()) if sys.platform == "linux" else None
    if name is None:
        pytest.skip("the runtime interface emulator exists for Linux on x86_64 and aarch64")
    root = Path(__file__).parents[2]
    binary = Path(os.environ.get("MLLESS_RIE") or root / _FOLDER / name)
    if not binary.exists():
        missing("aws-lambda-rie", "make .venv/dev, or name it in MLLESS_RIE")
    return binary
