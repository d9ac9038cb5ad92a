"""A job's store, bus and runtime: opened together, and whatever happens, taken down together."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from mlless import kernels
from mlless.channels.embedded_store import job_folder
from mlless.channels.opening import check_servers, open_hub, open_store
from mlless.channels.ports import Hub, KeyValueStore
from mlless.deployment import Addresses, Deployment
from mlless.job import JobSpec
from mlless.launch import ENTRY
from mlless.runtimes.opening import open_runtime
from mlless.runtimes.ports import Runtime


@dataclass(frozen=True)
class Session:
    """What the driver of a job holds in its hands."""

    addresses: Addresses
    store: KeyValueStore
    hub: Hub
    runtime: Runtime


@contextmanager
def open_session(deployment: Deployment, spec: JobSpec, model_bytes: int) -> Iterator[Session]:
    """Open all that a job needs; at the end nothing of it is left: no process, key, queue or file."""
    check_servers(deployment)
    with ExitStack() as stack:
        folder = None
        if deployment.embedded:
            # Room for three snapshots, and two updates a worker.
            folder = stack.enter_context(job_folder(needed=(3 + 2 * spec.workers) * model_bytes))
        addresses = deployment.addresses(f"mlless-{secrets.token_hex(6)}", str(folder) if folder else None)
        store = open_store(addresses, spec.deadlines.expiry)
        stack.callback(store.destroy)
        hub = open_hub(addresses, spec.deadlines.expiry)
        stack.callback(hub.destroy)
        # Who has no compiled kernels has been told so here; the workers need not say it again.
        runtime = open_runtime(deployment, ENTRY, folder, {"MLLESS_KERNELS": kernels.NAME})
        stack.callback(runtime.stop, 0.0)
        stack.callback(hub.close)  # first of all, so that functions that are left exit
        yield Session(addresses, store, hub, runtime)
