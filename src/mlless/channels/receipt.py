"""What a receiver checks of a message: whose it is, and that none before it is lost."""

from __future__ import annotations

from mlless.errors import ChannelError, CodecError
from mlless.messages import FromWorker, FunctionId, decode_from_worker


def message_of(sender: FunctionId | None) -> str:
    """Return how an error names a message; of None nothing is known."""
    return "message of a stranger" if sender is None else f"message of worker {sender[0]}"


def heard(data: bytes, sender: FunctionId | None) -> FromWorker:
    """Return the message; CodecError names its sender if it is none, or in the name of another function."""
    try:
        message = decode_from_worker(data)
    except CodecError as error:
        raise CodecError(error.what, where=message_of(sender), found=error.found) from error
    name = message.worker, message.generation
    if sender is not None and sender != name:
        raise CodecError(
            "a message in another worker's name",
            where=message_of(sender),
            expected=f"generation {sender[1]}",
            found=f"worker {name[0]} of generation {name[1]}",
        )
    return message


def gap(expected: int, found: int) -> ChannelError:
    """Return the error of a link to which the supervisor's messages do not come one after the other."""
    return ChannelError(
        "messages of the supervisor are lost", expected=f"number {expected}", found=f"{found}"
    )
