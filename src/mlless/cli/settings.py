"""Settings: a TOML file, over it ``MLLESS_*`` variables, over them arguments; and where each is from.

They are the fields of ``recipes.Wishes``, in the file's table ``[train]``, and of
``deployment.Deployment``, in its table ``[deployment]``. The name of a variable is that of the field.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from mlless.deployment import Deployment, hidden
from mlless.errors import UsageError
from mlless.recipes import Wishes

DEFAULT = "default"
FILE = "mlless.toml"
TABLES: dict[str, type[Wishes | Deployment]] = {"train": Wishes, "deployment": Deployment}
_FIELDS = {
    (table, field.name): field for table, kind in TABLES.items() for field in msgspec.structs.fields(kind)
}
_PREFIX = "MLLESS_"
_VARIABLES = {f"{_PREFIX}{name.upper()}": (table, name) for table, name in _FIELDS}
# Variables of the same prefix that others read.
_OTHERS = frozenset(
    f"{_PREFIX}{name}"
    for name in ("CHANNEL_DIR", "CONFIG", "DEBUG", "KERNELS", "MOVIELENS_URL", "RIE", "TEST_ALL")
)
_WORDS = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Setting:
    """One setting's value, and what it is from: a file, a variable, an argument, or the default."""

    table: str
    name: str
    value: Any
    origin: str

    @property
    def shown(self) -> Any:
        """The value as it may be shown: without passwords."""
        return hidden(self.value) if isinstance(self.value, str) else self.value


@dataclass(frozen=True)
class Settings:
    """All settings, merged. ``file`` is the one that was read, if any."""

    file: Path | None
    all: tuple[Setting, ...]

    def table(self, name: str) -> list[Setting]:
        """Return the settings of one table."""
        return [setting for setting in self.all if setting.table == name]

    def wishes(self) -> Wishes:
        """Return what to train."""
        return msgspec.convert({one.name: one.value for one in self.table("train")}, Wishes)

    def deployment(self) -> Deployment:
        """Return where to; UsageError names what was set, and where, if it does not go together."""
        settings = self.table("deployment")
        try:
            return msgspec.convert({one.name: one.value for one in settings}, Deployment)
        except UsageError as error:
            where = ", ".join(f"{one.name} from {one.origin}" for one in settings if one.origin != DEFAULT)
            raise UsageError(
                error.what, where=where, expected=error.expected, found=error.found, cure=error.cure
            ) from error


def merge(
    file: Path | None, environment: Mapping[str, str], arguments: Mapping[str, Mapping[str, object]]
) -> Settings:
    """Return the settings; UsageError for whatever there is no such setting for, or not of its type.

    ``arguments`` are by table and name. ``file`` None looks for one where the environment says, then
    in the working directory.
    """
    path = _file(file, environment)
    merged = {
        (table, name): Setting(table, name, field.default, DEFAULT)
        for (table, name), field in _FIELDS.items()
    }
    for layer in (_of_file(path) if path else [], _of_environment(environment), _of_arguments(arguments)):
        merged |= {(one.table, one.name): one for one in layer}
    return Settings(path, tuple(merged.values()))


def _file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    if named := environment.get("MLLESS_CONFIG"):
        return Path(named)
    return Path(FILE) if Path(FILE).exists() else None


def _of_file(path: Path) -> list[Setting]:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the settings: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("not a TOML file", where=str(path), found=str(error)) from error
    settings = []
    for table, content in tables.items():
        if table not in TABLES:
            home = next((f"put it into the table [{t}]" for t, name in _FIELDS if name == table), None)
            raise UsageError(
                f"no such table: {table}", where=str(path), cure=home or _nearest(table, list(TABLES))
            )
        if not isinstance(content, dict):
            raise UsageError(
                "not a table", where=str(path), expected=f"[{table}]", found=hidden(f"{table} = {content!r}")
            )
        for name, value in content.items():
            if (table, name) not in _FIELDS:
                names = [known for t, known in _FIELDS if t == table]
                home = next((f"put it into the table [{t}]" for t, known in _FIELDS if known == name), None)
                raise UsageError(
                    f"no such setting: {table}.{name}", where=str(path), cure=home or _nearest(name, names)
                )
            value = _converted(table, name, value, f"{path}: {table}.{name}", strict=True)
            settings.append(Setting(table, name, value, str(path)))
    return settings


def _of_environment(environment: Mapping[str, str]) -> list[Setting]:
    settings = []
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _OTHERS:
            continue
        if variable not in _VARIABLES:
            known = [one.removeprefix(_PREFIX) for one in (*_VARIABLES, *sorted(_OTHERS))]
            cure = _nearest(variable.removeprefix(_PREFIX), known, _PREFIX)
            raise UsageError(f"no such variable: {variable}", cure=cure)
        if text:  # one that is empty counts as not set
            table, name = _VARIABLES[variable]
            value = _converted(table, name, text, variable, strict=False)
            settings.append(Setting(table, name, value, variable))
    return settings


def _of_arguments(arguments: Mapping[str, Mapping[str, object]]) -> list[Setting]:
    return [
        Setting(table, name, value, "--" + name.replace("_", "-"))
        for table, values in arguments.items()
        for name, value in values.items()
    ]


def _converted(table: str, name: str, value: object, where: str, *, strict: bool) -> Any:
    """Return the value in its setting's type; ``strict`` is for values that come with a type."""
    kind = _type(_FIELDS[table, name].type)
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        expected = _WORDS[kind] if kind in _WORDS else "one of " + ", ".join(get_args(kind))
        found = value if isinstance(value, str) else repr(value)
        raise UsageError(
            "not a value of this setting", where=where, expected=expected, found=hidden(found) or "nothing"
        ) from error


def _type(annotation: Any) -> Any:
    """Return a field's type without None: what is not wanted is not set."""
    if get_origin(annotation) is Literal or annotation in _WORDS:
        return annotation
    return Union[tuple(one for one in get_args(annotation) if one is not type(None))]  # noqa: UP007


def _nearest(name: str, known: list[str], prefix: str = "") -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"there are {prefix}{f', {prefix}'.join(known)}"
