"""The process in which Lithops runs, and the only module that imports it. See ``lithops.py``.

Reads ``Wanted`` and then a list of Start a line from its standard input, and answers each; writes an
Ended for every function that is over. When its input closes it ends the functions it can end, removes
what Lithops stored for them, and exits; a last Refused says what is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import lithops
import lithops.storage.storage
import msgspec
from lithops.config import default_config, extract_storage_config, load_config
from lithops.constants import JOBS_PREFIX, LOCALHOST, SERVERLESS, SESSION_ID_ENV
from lithops.storage import InternalStorage
from lithops.storage.utils import data_key_suffix, func_key_suffix
from lithops.utils import BackendType

from mlless.errors import JobError, MLLessError, UsageError, hidden
from mlless.runtimes.ports import ONE_THREAD, Ended, debugging
from mlless.runtimes.remote import Returned, run
from mlless.runtimes.wire import Ready, Refused, Start, Wanted, encode

_POLL = 0.1  # seconds between looks at the states that Lithops' monitor keeps in this process
_FOREVER = 20 * 24 * 3600  # the longest that Lithops can wait for a process: its poll counts milliseconds
_SETTLING = 5  # seconds that Lithops takes off a time limit of the cloud, to tell of a time-out
_PLUMBING = ("lithops.", "six", __name__)  # modules whose frames are not the function's own


def main(folder: str, tidying: str) -> None:
    """Serve until standard input closes; then tidy up within so many seconds, and remove ``folder`` too."""
    commands, output = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what Lithops prints must not end up among the words
    if not debugging():
        logging.getLogger("lithops").addHandler(logging.NullHandler())  # else Python shows its warnings
    host: Host | None = None
    buffer, code = b"", 0
    try:
        while True:
            words: list[Ended | Ready | Refused] = []
            if select.select([commands], [], [], _POLL)[0]:
                data = os.read(commands, 1 << 20)
                if not data:
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    try:
                        if host is None:
                            host = Host(msgspec.json.decode(line, type=Wanted), folder)
                        else:
                            host.start(msgspec.json.decode(line, type=list[Start]))
                        words.append(Ready(host.time_limit, host.memory))
                    except MLLessError as error:
                        words.append(Refused.of(error))
            words += host.ended() if host else []
            for word in words:
                os.write(output, encode(word))
    except BrokenPipeError:
        pass  # no one listens any more
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        left = host.close(float(tidying)) if host else None
        shutil.rmtree(folder, ignore_errors=True)
        if left:
            with contextlib.suppress(BrokenPipeError):
                os.write(output, encode(Refused.of(left)))
        # All is tidied up; threads that Lithops leaves behind need not be waited for.
        os._exit(code)


class Host:
    """Lithops' executors of one runtime: one a start, each with room for exactly its functions."""

    def __init__(self, wanted: Wanted, folder: str) -> None:
        self._wanted = wanted
        asked = {"runtime_memory": wanted.memory, "runtime_timeout": wanted.time_limit}
        self._asked = {key: value for key, value in asked.items() if value is not None}
        with _Errors("Lithops' configuration does not work"):
            self._given = _prepared(load_config())
            self._config = default_config(config_data=self._given, config_overwrite={"backend": self._asked})
        settings, backend = self._config["lithops"], self._config["lithops"]["backend"]
        self._backend, self._mode = backend, settings["mode"]
        if self._mode not in (LOCALHOST, SERVERLESS):
            raise UsageError(
                "Lithops is configured for virtual machines, which do not run all functions at once",
                expected="localhost or a serverless backend",
                found=backend,
                cure="set the backend in Lithops' configuration",
            )
        if self._mode == LOCALHOST:
            # It costs half a second to ask this machine what it has; Lithops' cache of the answer is
            # shared by all that runs here, without a lock.
            lithops.storage.storage.CACHE_DIR = folder
        self._check_limits()
        self._limit = self._seconds()
        self._executors: list[Any] = []
        self._running: list[tuple[Start, Any]] = []

    @property
    def time_limit(self) -> float | None:
        """Seconds after which a function is ended."""
        if self._limit is None:
            return None
        return self._limit - (_SETTLING if self._mode == SERVERLESS else 0)

    @property
    def memory(self) -> int | None:
        """MB of a function; None on this machine."""
        if self._mode == LOCALHOST:
            return None
        memory = self._wanted.memory or self._config[self._backend].get("runtime_memory")
        return None if memory is None else int(memory)

    def start(self, starts: list[Start]) -> None:
        """Start all functions at once; UsageError if there is no room for them."""
        room = {"worker_processes": len(starts)} if self._mode == LOCALHOST else {}
        level = "debug" if debugging() else None
        with _Errors("Lithops cannot start the functions"):
            executor = lithops.FunctionExecutor(config=self._given, log_level=level, **self._asked, **room)
            self._executors.append(executor)
            if self._mode == SERVERLESS:
                self._check_room(executor, len(starts))
            futures = executor.map(
                run,
                [{"entry": self._wanted.entry, "payload": start.payload} for start in starts],
                chunksize=1,
                extra_env={**ONE_THREAD, **self._wanted.environment},
                timeout=self._limit or _FOREVER,
                include_modules=None,
            )
        self._running += zip(starts, futures, strict=True)

    def ended(self) -> list[Ended]:
        """Return the functions that ended since the last call, without waiting."""
        over = [(start, future) for start, future in self._running if future.ready or future.done]
        self._running = [pair for pair in self._running if pair not in over]
        return [_ended(start, future) for start, future in over]

    def close(self, seconds: float) -> JobError | None:
        """End the functions that can be ended and remove what Lithops stored; say what is left."""
        if not self._executors:
            return None
        pool = ThreadPoolExecutor(len(self._executors))
        tidied = [pool.submit(_tidy, executor) for executor in self._executors]
        wait(tidied, seconds)
        left, found = [], set()
        for executor, one in zip(self._executors, tidied, strict=True):
            if not one.done():
                found.add(f"not done within {seconds:g} s")
            elif error := one.exception():
                found.add(hidden(f"{type(error).__name__}: {error}".rstrip(".")))
            else:
                continue
            left.append(_stored(executor))
        if not left:
            return None
        storage = self._executors[0].internal_storage
        return JobError(
            "not all is removed that Lithops has stored",
            where=f"{', '.join(left)} in the bucket {storage.bucket} of {storage.backend}",
            found="; ".join(sorted(found)),
            cure="remove it by hand, for it holds what the functions were told, passwords of servers too",
        )

    def _check_limits(self) -> None:
        """Raise UsageError if the backend does not give what was asked for."""
        wanted = self._wanted
        if self._mode == LOCALHOST:
            if wanted.memory is not None:
                raise UsageError(
                    "functions of this machine have no memory to be set",
                    cure="leave it out, take --runtime processes, or configure a cloud backend for Lithops",
                )
            return
        given = self._config[self._backend]
        for what, unit, asked, key in (
            ("memory", "MB", wanted.memory, "runtime_memory"),
            ("time limit", "s", wanted.time_limit, "runtime_timeout"),
        ):
            if asked is not None and given.get(key, asked) != asked:
                raise UsageError(
                    f"{self._backend} has no functions of this {what}",
                    expected=f"its limit is {given[key]} {unit}",
                    found=f"{asked} {unit}",
                )

    def _seconds(self) -> float | None:
        """Return after how many seconds a function is ended: the shortest that anyone has set."""
        if self._mode == LOCALHOST and self._wanted.time_limit is not None:
            return self._wanted.time_limit
        limits = [self._given["lithops"].get("execution_timeout")]
        if self._mode == SERVERLESS:
            if self._wanted.time_limit is not None:
                limits = []
            limits.append(self._config[self._backend].get("runtime_timeout"))
        return min((float(limit) for limit in limits if limit is not None), default=None)

    def _check_room(self, executor: Any, wanted: int) -> None:
        """Raise UsageError if not all functions can run at the same time with those that run already."""
        settings = self._config[self._backend]
        room, whose = settings["max_workers"], f"max_workers of {self._backend} in Lithops' configuration"
        if executor.compute_handler.get_backend_type() == BackendType.BATCH.value:
            room *= settings["worker_processes"]
        if self._backend == "aws_lambda":
            account = _concurrency(executor.compute_handler.backend.lambda_client)
            if account is not None and account < room:
                room, whose = account, "what is left of the concurrency of the AWS account in this region"
        room -= len(self._running)
        if wanted > room:
            raise UsageError(
                "not all workers would run at the same time",
                expected=f"at most {room}, by {whose}",
                found=f"--workers {wanted}",
                cure="ask for fewer workers, or raise that limit",
            )


def forget_call() -> None:
    """Remove what Lithops has stored to call the function that this process is: it has been read by now."""
    name = os.environ[SESSION_ID_ENV].rsplit("-", 2)[0]
    storage = InternalStorage(extract_storage_config(default_config(config_data=load_config())))
    keys = storage.storage.list_keys(storage.bucket, f"{JOBS_PREFIX}/{name}")
    read = [key for key in keys if key.endswith((func_key_suffix, data_key_suffix))]
    storage.storage.delete_objects(storage.bucket, read)


def _stored(executor: Any) -> str:
    """Return what the keys of all begin with that Lithops stores for an executor."""
    return f"{JOBS_PREFIX}/{executor.executor_id}"


def _tidy(executor: Any) -> None:
    """End an executor's functions, and remove what Lithops stored for them."""
    executor.compute_handler.clear()  # before all that speaks to a storage, which may be away
    executor.__exit__(None, None, None)
    storage = executor.internal_storage
    keys = storage.storage.list_keys(storage.bucket, _stored(executor))
    storage.storage.delete_objects(storage.bucket, keys)


def _prepared(given: dict[str, Any]) -> dict[str, Any]:
    """Return the user's configuration of Lithops as a job needs it."""
    return {
        **given,
        "lithops": {**(given.get("lithops") or {}), "data_cleaner": False},  # ``close`` cleans, and at once
        # Lithops' own default is whatever is called python on the path.
        LOCALHOST: {"runtime": sys.executable, **(given.get(LOCALHOST) or {})},
    }


class _Errors:
    """Turns what Lithops and the clients below it raise, plain Exceptions too, into an error of ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, MLLessError) or not isinstance(error, Exception):
            return
        if debugging():
            traceback.print_exception(error)
        if isinstance(error, ModuleNotFoundError):
            raise UsageError(
                f"{self._what}: the client of its backend is not installed",
                found=str(error),
                cure="install it: pip install 'lithops[aws]', or [gcp], [azure], [ibm], ... for others",
            ) from error
        raise JobError(
            self._what,
            found=hidden(f"{type(error).__name__}: {error}".rstrip(".")),
            cure="try the configuration with: lithops hello; MLLESS_DEBUG=1 shows what Lithops does",
        ) from error


def _concurrency(client: Any) -> int | None:
    """Return how many functions may run at once in an AWS account; None if it may not be asked."""
    try:
        limits = client.get_account_settings()["AccountLimit"]
    except client.exceptions.ClientError:
        return None
    return int(limits["UnreservedConcurrentExecutions"])


def _ended(start: Start, future: Any) -> Ended:
    """Return how a function ended that Lithops knows to be over."""
    try:
        returned = msgspec.json.decode(future.result(), type=Returned)
    except BaseException as error:  # what ended it before or beside our own code, as Lithops tells it
        return Ended(start.worker, start.generation, 1, 0.0, hidden(_told(error)))
    return Ended(
        start.worker,
        start.generation,
        returned.code,
        returned.cpu_seconds,
        returned.cause,
        returned.seconds,
        returned.peak,
    )


def _told(error: BaseException) -> str:
    """Return the function's own part of a traceback."""
    trace = error.__traceback__
    while trace and str(trace.tb_frame.f_globals.get("__name__", "")).startswith(_PLUMBING):
        trace = trace.tb_next
    told = "".join(traceback.format_exception(type(error), error, trace)).strip()
    if isinstance(error, ModuleNotFoundError) and "mlless" in str(error):
        told += ". The functions' runtime has no mlless, or another release of it: see mlless function build"
    return told
