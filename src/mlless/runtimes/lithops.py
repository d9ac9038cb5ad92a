"""Runtime: functions of any cloud that Lithops knows, or of this machine, by Lithops' own configuration.

Lithops runs in a process of its own (``lithops_host.py``), where its threads, log lines and exit hooks stay.
If this process dies, that one ends the functions of this machine and removes its data.

What is pickled, and by whom: Lithops pickles its launch message. Of ours this holds the name of
``mlless.runtimes.remote.run``, the dotted name of the entry, and the JSON payload. No source, no module and
no data goes along (``include_modules=None``), so mlless has to be installed where the functions run. Its
launch message also carries Lithops' own configuration. What comes back is a line of JSON.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping

from mlless.errors import UsageError, not_installed
from mlless.messages import FunctionId
from mlless.runtimes.hosted import HostedRuntime
from mlless.runtimes.ports import Ended
from mlless.runtimes.wire import Wanted

_READY_DEADLINE = 120.0  # to load Lithops and its clients
# By these Lithops names what a function starts as a part of its own call, which is removed with that.
_OF_A_CALL = ("__LITHOPS_SESSION_ID", "__LITHOPS_TOTAL_EXECUTORS")
_TIDYING = 30.0  # for Lithops' clients to remove what it has stored: left alone, they try for minutes


class LithopsRuntime(HostedRuntime):
    """Starts functions through Lithops.

    ``memory`` (MB) and ``time_limit`` (seconds) override Lithops' configuration, whose place Lithops
    finds by itself: LITHOPS_CONFIG_FILE, .lithops_config, ~/.lithops/config. Without any, functions
    are processes of this machine. ``environment`` holds variables for the functions.
    ``start`` raises UsageError if Lithops' configuration or the account has no room for all of them.
    """

    START_DEADLINE = 900.0  # Lithops deploys a runtime when it is first used, which takes minutes

    def __init__(
        self, entry: str, memory: int | None, time_limit: int | None, environment: Mapping[str, str]
    ) -> None:
        if importlib.util.find_spec("lithops") is None:
            raise not_installed("the runtime lithops", "lithops", extra="lithops")
        named = os.environ.get("LITHOPS_CONFIG_FILE")
        if named and not os.path.isfile(named):
            # Lithops would take it for no configuration at all, and start processes of this machine.
            raise UsageError(
                "the configuration of Lithops is not there", where=named, cure="check LITHOPS_CONFIG_FILE"
            )
        # All that Lithops writes on this machine goes here, so that it can be removed at the end.
        self._folder = tempfile.mkdtemp(prefix="mlless-lithops-")
        super().__init__(
            "mlless.runtimes.lithops_host",
            [self._folder, str(_TIDYING)],
            {
                **{name: value for name, value in os.environ.items() if name not in _OF_A_CALL},
                "TMPDIR": self._folder,
            },
        )
        try:
            self._say(Wanted(entry, memory, time_limit, dict(environment)))
            self._ready = self._await_answer("Lithops is not ready", _READY_DEADLINE)
        except BaseException:
            self.stop(0.0)
            raise

    @property
    def time_limit(self) -> float | None:
        """Seconds after which Lithops or the cloud ends a function; None if they never do."""
        return self._ready.time_limit

    @property
    def memory(self) -> int | None:
        """MB of a function by Lithops' configuration, unless other were asked for; None on this machine."""
        return self._ready.memory

    def end(self, functions: Collection[FunctionId]) -> None:
        """Do nothing: Lithops cannot cancel a call, nor does it know which process or instance serves it."""

    def stop(self, grace: float) -> list[Ended]:
        """Wait, then end what is left: processes at once, functions of a cloud when they notice.

        Warns of what Lithops has stored and could not be removed.
        """
        try:
            return super().stop(grace)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
