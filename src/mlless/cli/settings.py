"""Settings: a TOML file, over it ``MLLESS_*`` variables, over them arguments; and where each is from.

They are the options that ``Wishes`` declares, in the file's table ``[train]``, and those of ``Deployment``,
in its table ``[deployment]``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from mlless.deployment import Deployment
from mlless.errors import UsageError, hidden
from mlless.options import Declared, anew, declared, made, nearest
from mlless.wishes import Wishes

DEFAULT = "default"
FILE = "mlless.toml"
TABLES = {
    table: {one.name: one for one in declared(kind)}
    for table, kind in (("train", Wishes), ("deployment", Deployment))
}
OPTIONS = {name: one for options in TABLES.values() for name, one in options.items()}
ANEW = {one.name: one for one in (*anew(Wishes), *declared(Deployment))}
_PREFIX = "MLLESS_"
_VARIABLES = {f"{_PREFIX}{name.upper()}": name for name in OPTIONS}
# Variables of the same prefix that others read.
_OTHERS = frozenset(
    f"{_PREFIX}{name}"
    for name in ("CHANNEL_DIR", "CONFIG", "DEBUG", "KERNELS", "LEASE", "MOVIELENS_URL", "RIE", "TEST_ALL")
)


@dataclass(frozen=True)
class Setting:
    """What an option is set to, and what from: a file, a variable, an argument, or the default."""

    option: Declared
    value: Any
    origin: str

    @property
    def shown(self) -> Any:
        """The value as it may be shown: without passwords."""
        return hidden(self.value) if isinstance(self.value, str) else self.value


@dataclass(frozen=True)
class Settings:
    """All settings, merged, by name. ``file`` is the one that was read, if any."""

    file: Path | None
    all: Mapping[str, Setting]

    def wishes(self) -> Wishes:
        """Return what to train."""
        return made(Wishes, {name: one.value for name, one in self.all.items()})

    def given_anew(self) -> dict[str, object]:
        """Return the arguments that change a run which is resumed; files and variables do not."""
        return {
            name: one.value
            for name, one in self.all.items()
            if name in ANEW and name in TABLES["train"] and one.origin == one.option.flag
        }

    def deployment(self) -> Deployment:
        """Return where to; UsageError names what was set, and where, if it does not go together."""
        try:
            return made(Deployment, {name: one.value for name, one in self.all.items()})
        except UsageError as error:
            where = ", ".join(
                f"{name} from {self.all[name].origin}"
                for name in TABLES["deployment"]
                if self.all[name].origin != DEFAULT
            )
            raise UsageError(
                error.what, where=where, expected=error.expected, found=error.found, cure=error.cure
            ) from error


def merge(file: Path | None, environment: Mapping[str, str], arguments: Mapping[str, object]) -> Settings:
    """Return the settings; UsageError for an unknown one in the file, or a value that is not of its type.

    A variable of our prefix that no one reads is only warned of. ``arguments`` are by name. ``file`` None
    looks for one where the environment says, then in the working directory.
    """
    path = _file(file, environment)
    merged = {name: Setting(one, one.default, DEFAULT) for name, one in OPTIONS.items()}
    for layer in (_of_file(path) if path else (), _of_environment(environment), _of_arguments(arguments)):
        merged |= {one.option.name: one for one in layer}
    return Settings(path, merged)


def _file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    if named := environment.get("MLLESS_CONFIG"):
        return Path(named)
    return Path(FILE) if Path(FILE).exists() else None


def _of_file(path: Path) -> Iterator[Setting]:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the settings: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("not a TOML file", where=str(path), found=str(error)) from error
    for table, content in tables.items():
        if table not in TABLES:
            cure = _home(table) or nearest(table, list(TABLES))
            raise UsageError(f"no such table: {table}", where=str(path), cure=cure)
        if not isinstance(content, dict):
            raise UsageError(
                "not a table", where=str(path), expected=f"[{table}]", found=hidden(f"{table} = {content!r}")
            )
        for name, value in content.items():
            if name not in TABLES[table]:
                cure = _home(name) or nearest(name, list(TABLES[table]))
                raise UsageError(f"no such setting: {table}.{name}", where=str(path), cure=cure)
            yield _setting(name, value, str(path), f"{path}: {table}.{name}", strict=True)


def _home(name: str) -> str | None:
    """Return where a setting belongs that stands in the wrong place of a file; None if there is none."""
    return next((f"put it into the table [{table}]" for table in TABLES if name in TABLES[table]), None)


def _of_environment(environment: Mapping[str, str]) -> Iterator[Setting]:
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _OTHERS:
            continue
        if variable not in _VARIABLES:
            known = [one.removeprefix(_PREFIX) for one in (*_VARIABLES, *sorted(_OTHERS))]
            error = UsageError(
                f"no such variable: {variable}", cure=nearest(variable.removeprefix(_PREFIX), known, _PREFIX)
            )
            typer.echo(f"warning: {error}", err=True)  # it may be a later release's, or another program's
        elif text:  # one that is empty counts as not set
            yield _setting(_VARIABLES[variable], text, variable, variable, strict=False)


def _of_arguments(arguments: Mapping[str, object]) -> Iterator[Setting]:
    for name, value in arguments.items():
        yield _setting(name, value, OPTIONS[name].flag, OPTIONS[name].flag, strict=False)


def _setting(name: str, given: object, origin: str, where: str, *, strict: bool) -> Setting:
    return Setting(OPTIONS[name], OPTIONS[name].value(given, where, strict=strict), origin)
