"""A function's entry point: from a JSON payload to a running worker.

A runtime knows a function by ``ENTRY`` and the payload alone. Nothing is pickled.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

import mlless
from mlless.channels.opening import open_link, open_store
from mlless.channels.ports import Link
from mlless.clock import Clock, SystemClock
from mlless.data.dataset import Dataset, open_dataset
from mlless.deployment import Addresses
from mlless.errors import DatasetError, JobError
from mlless.job import JobSpec
from mlless.messages import PROTOCOL, failure_of
from mlless.stepping import Stepper
from mlless.worker import Identity, Worker

ENTRY = "mlless.launch:main"


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a function is told: who started it, the job, where its functions meet, and who it is.

    It is ended ``limit`` seconds after its start, if any.
    """

    protocol: int
    version: str
    job: JobSpec
    addresses: Addresses
    worker: int
    generation: int
    limit: float | None = None


class _Sender(msgspec.Struct, frozen=True):
    """The part of a Launch that every release understands."""

    protocol: int
    version: str


# Made before a zygote forks: to look through the types takes milliseconds.
_launch = msgspec.json.Decoder(Launch)
_sender = msgspec.json.Decoder(_Sender)


def launch_of(
    job: JobSpec, addresses: Addresses, worker: int, generation: int, limit: float | None = None
) -> bytes:
    """Return the payload of a worker."""
    launch = Launch(PROTOCOL, mlless.__version__, job, addresses, worker, generation, limit)
    return msgspec.json.encode(launch)


def check_sender(payload: bytes) -> None:
    """Raise JobError if the driver that sent ``payload`` is of another protocol."""
    sender = _sender.decode(payload)
    if sender.protocol != PROTOCOL:
        raise JobError(
            "this function does not fit the driver that started it",
            expected=f"protocol {PROTOCOL} of mlless {mlless.__version__}, as the function has",
            found=f"protocol {sender.protocol} of mlless {sender.version}",
            cure="install the same release of mlless on both sides",
        )


def main(payload: bytes, left: float | None = None, stepper: type[Stepper] = Stepper) -> None:
    """Run the worker that ``payload`` describes, until its part is done; its ``stepper`` takes its steps.

    It has so many seconds ``left``, or else the limit that the payload tells.
    """
    clock = SystemClock()
    began = clock.now()
    check_sender(payload)
    launch = _launch.decode(payload)
    left = launch.limit if left is None else left
    until = None if left is None else began + left
    link = open_link(launch.addresses, launch.worker, launch.generation)
    try:
        _worker(launch, link, clock, until, stepper).run()
    finally:
        link.close()


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Run the worker that ``event``, a ``Launch``, describes: the entry point as AWS Lambda calls it.

    An error becomes that of the function. Lambda's ``context`` knows how much time is left.
    """
    main(msgspec.json.encode(event), context.get_remaining_time_in_millis() / 1000)
    return {"worker": event["worker"], "generation": event["generation"]}


def dataset_of(job: JobSpec) -> Dataset:
    """Return the data set of a job; DatasetError if it is not the one that the job was planned for."""
    dataset = open_dataset(job.dataset)
    if dataset.manifest.fingerprint != job.fingerprint:
        raise DatasetError(
            "not the data set the job was planned for",
            where=dataset.location,
            expected=f"fingerprint {job.fingerprint}",
            found=dataset.manifest.fingerprint,
            cure="was it partitioned again meanwhile? Start the job again",
        )
    return dataset


def _worker(launch: Launch, link: Link, clock: Clock, until: float | None, stepper: type[Stepper]) -> Worker:
    me = Identity(launch.worker, launch.generation, os.getpid(), mlless.__version__)
    try:
        dataset = dataset_of(launch.job)
        store = open_store(launch.addresses, launch.job.deadlines.expiry)
        return Worker(
            launch.job,
            me,
            store=store,
            link=link,
            dataset=dataset,
            clock=clock,
            until=until,
            stepper=stepper,
        )
    except Exception as error:  # whatever it is, the user is to see it
        link.send(failure_of(launch.worker, launch.generation, -1, error))
        raise
