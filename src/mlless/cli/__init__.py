"""The command line: one command a file. It speaks to a person and decides nothing."""

from __future__ import annotations

import sys

from mlless.cli.codes import INTERRUPTED


def main() -> None:
    """Run the command line."""
    try:
        from mlless.cli.app import app
    except KeyboardInterrupt:  # while it loads; later the commands see to it
        sys.exit(INTERRUPTED)
    app(prog_name="mlless")
