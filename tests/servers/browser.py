"""A real browser without a screen: Chromium, as the system installs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from servers.need import missing


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A running Chromium; it cannot reach anything but files of this machine."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("Chromium", "on Debian: apt install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
        yield started
        started.close()
