"""A job's store, bus and runtime: opened together, and whatever happens, taken down together.

``doctor`` opens the same for a job that trains nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mlless import kernels
from mlless.channels.embedded_store import job_folder
from mlless.channels.opening import open_hub, open_store
from mlless.channels.ports import Hub, KeyValueStore
from mlless.deployment import Addresses, Deployment
from mlless.runtimes.opening import open_runtime
from mlless.runtimes.ports import Runtime
from mlless.runtimes.strays import TAG


@dataclass(frozen=True)
class Session:
    """What the driver of a job holds in its hands."""

    addresses: Addresses
    store: KeyValueStore
    hub: Hub
    runtime: Runtime


@contextmanager
def meeting(
    deployment: Deployment, *, name: str = "mlless", needed: int = 0
) -> Iterator[tuple[Addresses, Path | None]]:
    """Give the addresses of a new job, and the folder that a channel which is embedded needs.

    ``name`` is how the job's own begins. ``needed`` bytes are to fit into the folder, which is removed.
    """
    with job_folder(needed) if deployment.embedded else nullcontext() as folder:
        job = f"{name}-{secrets.token_hex(6)}"
        yield deployment.addresses(job, str(folder) if folder else None), folder


@contextmanager
def open_session(
    deployment: Deployment, entry: str, *, expiry: float, name: str = "mlless", needed: int = 0
) -> Iterator[Session]:
    """Open all that a job needs; at the end nothing of it is left: no process, key, queue or file.

    Its functions start at the dotted name ``entry``. What is on servers expires ``expiry`` seconds after
    its last use. ``name`` and ``needed`` are those of ``meeting``.
    """
    with meeting(deployment, name=name, needed=needed) as (addresses, folder), ExitStack() as stack:
        store = open_store(addresses, expiry)
        stack.callback(store.destroy)
        hub = open_hub(addresses, expiry)
        stack.callback(hub.destroy)
        # Who has no compiled kernels has been told so here; the workers need not say it again.
        environment = {"MLLESS_KERNELS": kernels.NAME, TAG: addresses.job}
        runtime = open_runtime(deployment, entry, folder, environment)
        stack.callback(runtime.stop, 0.0)
        stack.callback(hub.close)  # first of all, so that functions that are left exit
        yield Session(addresses, store, hub, runtime)
