"""The one exception tree of the project.

Beside each class stands its exit code::

    MLLessError                 exit code 1
    +-- UsageError              2   a request that cannot be carried out as asked
    +-- InputError              3   a source file that is not what it should be
    +-- DatasetError            4   a data set or model folder that is missing, damaged or of another version
    +-- ChannelError            5   a store, bus or server that does not do its work
    |   +-- MissingUpdate           a published update is not in the store
    |   +-- MissingObject           an object or file is not there
    |   +-- DeadlineExceeded        a wait ended without what it waited for
    |   +-- Disconnected            the other side of a link is gone
    |   +-- CodecError              bytes from a channel are not a valid update or message
    +-- JobError                6   a job that cannot go on
        +-- WorkerFailed            a worker raised; carries its traceback
        +-- WorkerLost              a worker died without a word
        +-- ReplicasDiffer          the shared part is not the same bits everywhere
        +-- NotFinite               a parameter became NaN or infinite

Every error says what happened, where, what was expected and found, and what to do about it.
Errors of other libraries are turned into these at the port where they arise.

Options are written as one types them, ``--max-cost``. The command line shows an error ``as_typed``. ``str``
names options as Python does, ``max_cost``.
"""

from __future__ import annotations

import re
import sys
import warnings

# Rather too much than too little: a password may hold what would have had to be escaped. It ends at the last
# @ of its line before another URL.
_SECRET = re.compile(
    r"(?<=://)((?:(?!://)[^:\n])*):(?:(?!://)[^\n])*@|((?:password|secret|token|key|signature|sig)=)[^&,\s]*",
    re.IGNORECASE,
)

# A command is one of a shell, whoever reads it: it ends with its line or sentence, or its brackets.
_TYPED = re.compile(
    r"\b(?:mlless|docker|pip) (?:(?!\. [A-Z])[^;)\n])*|(?:(?<=[\s(])|^)--(?P<option>[a-z][a-z0-9-]*)"
)
_OTHERWISE = {"include-seen": "exclude_seen=False"}  # options that Python has under another name


def in_python(text: str) -> str:
    """Return ``text`` with the options in it named as Python does, but for those of whole commands.

    >>> in_python("raise --max-cost, or start it again: mlless train DATASET --out ANOTHER")
    'raise `max_cost`, or start it again: mlless train DATASET --out ANOTHER'
    """

    def named(found: re.Match[str]) -> str:
        """Return the option that was found as Python names it, a command as it is."""
        option = found["option"]
        return f"`{_OTHERWISE.get(option, option.replace('-', '_'))}`" if option else found[0]

    return _TYPED.sub(named, text)


def hidden(text: str) -> str:
    """Return ``text`` with the passwords of the URLs in it replaced, fit to be shown or logged."""
    return _SECRET.sub(lambda m: f"{m[2]}***" if m[2] else f"{m[1]}:***@", text)


class DataWarning(UserWarning):
    """A reason to doubt the data: little can be learnt from it, or little can be judged by it."""


def warn(text: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of this package that led here, however deep within it the trouble is seen."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "mlless":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, kind, stacklevel=level)


class MLLessError(Exception):
    """An error that a user can act on; all errors of this package are of this class.

    Its text says what happened and where, what was expected and found, and what to do about it. It names
    options as Python does.

    Attributes
    ----------
    what : str
        What happened.
    where : str or None
        The file, address or option that it is about.
    expected, found : str or None
        What should be there, and what is.
    cure : str or None
        What to do about it.
    exit_code : int
        The exit code of a command that ends with it.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        cure: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.cure = what, where, expected, found, cure
        text = f"{where}: {what}" if where else what
        details = [f"{word} {value}" for word, value in (("expected", expected), ("found", found)) if value]
        if details:
            text += ": " + ", ".join(details)
        if cure:
            text += f". {cure[0].upper()}{cure[1:]}"
        super().__init__(text)

    def __str__(self) -> str:
        return in_python(self.as_typed)

    @property
    def as_typed(self) -> str:
        """The text with options as one types them to a shell."""
        return str(self.args[0])


class UsageError(MLLessError):
    """A request that cannot be carried out as asked: exit code 2."""

    exit_code = 2


class InputError(MLLessError):
    """A source file that is not what it should be: exit code 3."""

    exit_code = 3


class DatasetError(MLLessError):
    """A data set, run or model that is missing, damaged or of another version: exit code 4."""

    exit_code = 4


class ChannelError(MLLessError):
    """A store, bus or server that does not do its work: exit code 5."""

    exit_code = 5


class MissingUpdate(ChannelError):
    """A value that must be in the store is not there."""


class MissingObject(ChannelError):
    """An object or file is not there."""


class DeadlineExceeded(ChannelError):
    """A wait ended without what it waited for."""


class Disconnected(ChannelError):
    """The other side of a link is gone."""


class CodecError(ChannelError):
    """Bytes from a channel are not a valid update or message."""


class JobError(MLLessError):
    """A job that cannot go on: exit code 6."""

    exit_code = 6


class WorkerFailed(JobError):
    """A worker failed with an error of its own; the message has its traceback."""


class WorkerLost(JobError):
    """A worker, or a whole job, died without a word."""


class ReplicasDiffer(JobError):
    """The shared part is not the same bits on all workers."""


class NotFinite(JobError):
    """A parameter or its change became NaN or infinite."""


def not_installed(what: str, *packages: str, extra: str | None = None) -> UsageError:
    """Return the error of a part that needs packages which are not here; an ``extra`` brings all of them."""
    wanted = f"'mlless[{extra}]'" if extra else " ".join(packages)
    return UsageError(
        f"{what} needs {' and '.join(packages)}", cure=f"install what is missing: pip install {wanted}"
    )
