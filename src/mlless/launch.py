"""A function's entry point: from a JSON payload to a running worker.

A runtime knows a function by ``ENTRY`` and the payload alone. Nothing is pickled.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

import mlless
from mlless.channels.embedded_bus import EmbeddedLink
from mlless.channels.embedded_store import EmbeddedStore
from mlless.clock import SystemClock
from mlless.data.dataset import open_dataset
from mlless.errors import DatasetError
from mlless.job import JobSpec
from mlless.messages import failure_of
from mlless.worker import Identity, Worker

ENTRY = "mlless.launch:main"


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a function is told: the job, the folder of its channels, and who it is."""

    job: JobSpec
    channels: str
    worker: int
    generation: int


def main(payload: bytes) -> None:
    """Run the worker that ``payload`` (a Launch as JSON) describes, until its part is done."""
    launch = msgspec.json.decode(payload, type=Launch)
    folder = Path(launch.channels)
    link = EmbeddedLink(folder)
    try:
        _worker(launch, folder, link).run()
    finally:
        link.close()


def _worker(launch: Launch, folder: Path, link: EmbeddedLink) -> Worker:
    me = Identity(launch.worker, launch.generation, os.getpid(), mlless.__version__)
    try:
        dataset = open_dataset(launch.job.dataset)
        if dataset.manifest.fingerprint != launch.job.fingerprint:
            raise DatasetError(
                "not the data set the job was planned for",
                where=dataset.location,
                expected=f"fingerprint {launch.job.fingerprint}",
                found=dataset.manifest.fingerprint,
                cure="was it partitioned again meanwhile? Start the job again",
            )
        store = EmbeddedStore(folder)
        return Worker(launch.job, me, store=store, link=link, dataset=dataset, clock=SystemClock())
    except Exception as error:  # whatever it is, the user is to see it
        link.send(failure_of(launch.worker, launch.generation, -1, error))
        raise
