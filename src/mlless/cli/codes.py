"""Exit codes beside those of errors (see ``mlless.errors``)."""

from __future__ import annotations

DIVERGED = 7
INTERRUPTED = 130  # as shells report a process that SIGINT ended
BROKEN_PIPE = 141  # and one that wrote to a pipe no one reads
