"""The supervisor of a detached job as a function of Lithops, and its caller.

The function leads the job as the process of ``supervising.py`` does. Shortly before its time limit it
suspends the job at a checkpoint and calls its successor by itself. So the machine where the job was started
is not needed. The caller is a guardian. It holds what Lithops needs of a call, and on a cloud it may end once
the call is made.

What the function prints is appended to ``job.log`` in the run's place at its end. Its answer to a caller that
waits is an object there, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

import msgspec

from mlless.channels.opening import open_objects
from mlless.detached.launching import begin, log_of, patience
from mlless.detached.order import Answer, Order
from mlless.detached.supervising import supervise
from mlless.errors import ChannelError, MissingObject, MLLessError
from mlless.job import Deadlines
from mlless.locations import Place, place_of
from mlless.report.history import PART
from mlless.report.underway import LOG, STOP, Detached, read_underway, write_underway
from mlless.runtimes import remote
from mlless.runtimes.lithops import LithopsRuntime
from mlless.runtimes.ports import Ended

ENTRY = "mlless.detached.function:main"
_ANSWER = f"{PART}answer"
_LOOK = 0.5  # seconds between two looks: has it ended, has it answered
_LEAD = 60.0  # seconds before its limit that it suspends its job, but at most half of that


def call(order: Order, tell: Callable[[Answer], None], asked: Callable[[], bool]) -> str | None:
    """Call the function that an order is for, and see to its end; return how it was lost, None if it was not.

    Who waits is told that it is called, or what it answers. ``asked`` says that the job is to end.
    """
    place, deployment = place_of(order.out), order.deployment
    # A folder for temporary files that outlives this call, where the function runs on this machine.
    environment = {"TMPDIR": tempfile.gettempdir()}
    runtime = LithopsRuntime(ENTRY, deployment.memory, deployment.time_limit, environment)
    try:
        order = msgspec.structs.replace(order, limit=runtime.time_limit)
        runtime.start({(0, order.number): msgspec.json.encode(order)})
        if order.called:
            tell(Answer(0))
        waits, stopped = not order.called, False
        while not (ended := runtime.ended()):
            if waits and (answer := _answer(place)):
                tell(answer)
                waits = False
            if asked() and not stopped:
                stopped = True
                open_objects(place).put(STOP, b"")
            time.sleep(_LOOK)
        if waits and (answer := _answer(place)):
            tell(answer)
        return _loss(ended[0])
    finally:
        runtime.stop(0.0)


def _loss(ended: Ended) -> str | None:
    """Return how a function was lost: by no error of its job, for these it tells by itself."""
    return None if ended.code == 0 else ended.describe().strip().splitlines()[-1]


def _answer(place: Place) -> Answer | None:
    """Return what the function answers who waits for it, once; None if it has not yet."""
    try:
        answer = msgspec.json.decode(open_objects(place).get(_ANSWER), type=Answer)
        open_objects(place).delete([_ANSWER])
    except ChannelError:  # not there, or the place is away for a while
        return None
    return answer


def main(payload: bytes) -> None:
    """Lead the job of an order as a function, and call the successor if it is suspended."""
    from mlless.runtimes.lithops_host import forget_call

    forget_call()  # it holds the passwords of servers, and who called may be gone
    tempfile.tempdir = None  # it is another one than that of Lithops
    order = msgspec.json.decode(payload, type=Order)
    place, limit = place_of(order.out), order.limit
    told = order.called

    def tell(answer: Answer) -> None:
        """Give the first answer to who called."""
        nonlocal told
        if not told:
            told = True
            open_objects(place).put(_ANSWER, msgspec.json.encode(answer))

    with _logging(place, anew=not order.number):
        within = None if limit is None else remote.began + limit - min(_LEAD, limit / 2) - time.monotonic()
        detached = Detached(0, order.log, order.losses, order.holder, order.number)
        if supervise(order, detached, tell, within):
            _call_successor(order)


def _call_successor(order: Order) -> None:
    deployment, place = order.deployment, place_of(order.out)
    following = msgspec.structs.replace(order, number=order.number + 1, called=True)
    try:
        # First of all it is the successor's job: nobody is to call another one.
        job = read_underway(place)
        assert job is not None, "a job that is suspended, but over"
        detached = Detached(0, order.log, order.losses, order.holder, following.number)
        write_underway(place, msgspec.structs.replace(job, detached=detached))
        begin(following, patience(deployment, Deadlines()), log_of(place))
    except MLLessError as error:
        print(
            f"the next supervisor could not be called: {error.as_typed}. Go on with mlless resume {order.out}"
        )


@contextmanager
def _logging(place: Place, *, anew: bool) -> Iterator[None]:
    """Append what is printed to the log in the run's place."""
    with tempfile.TemporaryFile("w+", buffering=1) as log:
        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield
        finally:
            log.seek(0)
            with suppress(ChannelError):
                append_log(place, log.read(), anew=anew)


def append_log(place: Place, text: str, *, anew: bool = False) -> None:
    """Add to the log that is in the run's place, or begin it anew."""
    objects, before = open_objects(place), b""
    if not anew:
        with suppress(MissingObject):
            before = objects.get(LOG)
    if text or anew:
        objects.put(LOG, before + text.encode())
