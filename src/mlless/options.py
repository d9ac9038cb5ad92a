"""Options, each declared once: a field of a struct, ``Annotated[type, Option(...)] = default``.

The command line, ``MLLESS_*`` variables, the settings file, ``mlless config``, the page of settings, and the
signature and docstring of ``mlless.train`` are made from these declarations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from types import NoneType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from mlless.errors import UsageError, hidden

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound=msgspec.Struct)
_SECTION = "\n\nOther Parameters\n----------------"
AS_IT_WAS = "as it was"
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Option(msgspec.Struct, frozen=True):
    """What there is to say of a field: the group it belongs to, and what it is.

    ``unless`` says what holds while the option is not given, where its default does not say so itself.
    ``anew``: a run that is resumed may be given it anew; it goes on as it was while that is not given.
    """

    group: str
    help: str
    unless: str = ""
    metavar: str | None = None
    anew: bool = False


class Declared(msgspec.Struct, frozen=True):
    """A declaration as it was read; ``type`` is without None: what is not wanted is not given."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """What it is called on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def unless_given(self) -> str:
        """What holds while it is not given, in words."""
        return self.option.unless or ("none" if self.default is None else str(self.default))

    @property
    def _unit(self) -> str:
        number = self.type in (int, float)
        return f" ({self.option.metavar})" if number and self.option.metavar else ""

    def value(self, given: object, where: str, *, strict: bool = True) -> Any:
        """Return a value in the option's type; UsageError if it is not of it.

        A value that comes as text, as from a variable, is not ``strict``: it may be text for a number.
        """
        try:
            return msgspec.convert(given, self.type, strict=strict)
        except msgspec.ValidationError as error:
            raise UsageError(
                "not a value of this setting",
                where=where,
                expected=worded(self.type) + self._unit,
                found=hidden(repr(given) if strict or not isinstance(given, str) else given) or "nothing",
            ) from error


def declared(kind: type[msgspec.Struct]) -> Iterator[Declared]:
    """Yield the options that a struct declares."""
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        annotation, option = get_args(hints[field.name])
        members = get_args(annotation) if get_origin(annotation) is not Literal else ()
        inner = Union[tuple(one for one in members if one is not NoneType)] if members else annotation  # noqa: UP007
        yield Declared(field.name, inner, field.default, option)


def anew(kind: type[msgspec.Struct]) -> Iterator[Declared]:
    """Yield the options that ``resume`` may be given again, without defaults: not given means as before."""
    for one in declared(kind):
        if one.option.anew:
            option = msgspec.structs.replace(one.option, unless=AS_IT_WAS)
            yield msgspec.structs.replace(one, default=None, option=option)


def made(kind: type[_S], given: Mapping[str, object]) -> _S:
    """Return the struct of these options; those of others are passed over, None is not given."""
    return kind(**chosen(declared(kind), given))


def chosen(every: Iterable[Declared], given: Mapping[str, object]) -> dict[str, Any]:
    """Return by name what is given of these options, in their types; None is not given."""
    return {
        one.name: one.value(given[one.name], one.name) for one in every if given.get(one.name) is not None
    }


def worded(kind: Any) -> str:
    """Return in words what a type allows."""
    if kind in _WORDS:
        return _WORDS[kind]
    if get_origin(kind) is not Literal:
        return " or ".join(map(worded, get_args(kind)))
    choices = get_args(kind)
    return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)


def spelt(kind: Any) -> str:
    """Return a type as it is written in Python."""
    if isinstance(kind, type):
        return kind.__name__
    if get_origin(kind) is not Literal:
        return " | ".join(map(spelt, get_args(kind)))
    choices = ", ".join(f'"{choice}"' for choice in get_args(kind))
    return f"Literal[{choices}]"


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Return the cure for a name that there is not: the nearest one that there is, or all of them."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"there are {prefix}{f', {prefix}'.join(known)}"


def knows_options(kind: type) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a function whose ``**options`` are the keys of a TypedDict tell the nearest one of a wrong name."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return the function with names checked."""
        *own, _ = inspect.signature(function).parameters
        return _knowing(function, [name for name in (*own, *kind.__annotations__) if name != "self"])

    return decorate


def _knowing(function: Callable[_P, _R], names: Sequence[str]) -> Callable[_P, _R]:
    """Return the function; a name that is not among ``names`` is a TypeError that names the nearest one."""

    @wraps(function)
    def checked(*arguments: _P.args, **given: _P.kwargs) -> _R:
        """Check the names, and call the function."""
        for name in given:
            if name not in names:
                raise TypeError(f"{function.__name__}() has no argument {name}: {nearest(name, names)}")
        return function(*arguments, **given)

    return checked


def takes_options(*every: Declared) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Give a function with ``**options`` these options by name: its signature and docstring.

    A name that there is not is a TypeError, as in any function, that names the nearest one.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return the function with these options in its signature and docstring."""
        signature = inspect.signature(function)
        *own, _ = signature.parameters.values()
        options = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type | None
            )
            for one in every
        ]
        names = [one.name for one in (*own, *options)]

        checked = _knowing(function, names)
        checked.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        checked.__doc__ = "".join(
            [inspect.cleandoc(function.__doc__ or ""), _SECTION, *map(_documented, every)]
        )
        return checked

    return decorate


def _documented(one: Declared) -> str:
    return f"\n{one.name} : {spelt(one.type)}, default: {one.unless_given}\n    {one.option.help}"
