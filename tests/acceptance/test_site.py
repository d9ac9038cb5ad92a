"""The site: it builds without a warning, its links lead somewhere, and its reference misses nothing."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

import mlless
import mlless.estimators
import mlless.tracking
from mlless import errors
from mlless.billing.tariff import TARIFFS
from mlless.cli import codes
from mlless.cli.settings import OPTIONS, TABLES
from mlless.errors import MLLessError
from mlless.planning import PLANS
from mlless.records import StepRecord, StepTimes, Summary
from mlless.simulation.world import WORLDS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOOLS = ROOT / "tools"
_VARIABLE = re.compile(r"\bMLLESS_[A-Z_]*[A-Z]\b")


class _Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in ("script", "img", "source", "iframe") and "src" in given:
            self.loaded.add(given["src"])
        if tag == "link" and given.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.loaded.add(given["href"])


@dataclass
class Site:
    """A built site."""

    folder: Path
    said: str
    parsed: dict[Path, _Page] = field(default_factory=dict)

    def html(self, name: str) -> str:
        return (self.folder / name).read_text()

    def page(self, path: Path) -> _Page:
        if path not in self.parsed:
            self.parsed[path] = _Page()
            self.parsed[path].feed(path.read_text())
        return self.parsed[path]

    @cached_property
    def pages(self) -> list[Path]:
        return sorted(self.folder.rglob("*.html"))

    def broken(self) -> Iterator[str]:
        """Yield every link within the site that leads nowhere."""
        for path in self.pages:
            for link in sorted(self.page(path).links | self.page(path).loaded):
                parts = urlsplit(link)
                if parts.scheme or parts.netloc:
                    continue
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not target.is_file():
                    yield f"{path.name}: {link}: no such page"
                elif (
                    parts.fragment
                    and target.suffix == ".html"
                    and unquote(parts.fragment) not in self.page(target).anchors
                ):
                    yield f"{path.name}: {link}: no such place"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", DOCS, folder / "html"],
        env={**os.environ, "PYTHONPATH": str(Path(mlless.__file__).parents[1]), "MPLCONFIGDIR": str(folder)},
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Site(folder / "html", done.stderr)


def test_every_page_of_the_folder_is_in_the_site(site: Site) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site.folder / page.relative_to(DOCS)).with_suffix(".html").exists(), page


def test_no_link_leads_nowhere(site: Site) -> None:
    assert list(site.broken()) == []


def test_a_link_that_leads_nowhere_is_found(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html"></a><a href="#none"></a><p id="some"><a href="#some"></a>'
    )
    found = list(Site(tmp_path, "").broken())
    assert found == ["a.html: #none: no such place", "a.html: b.html: no such page"]


def test_a_page_loads_nothing_from_elsewhere(site: Site) -> None:
    for path in site.pages:
        assert not [one for one in site.page(path).loaded if urlsplit(one).netloc], path
    for sheet in site.folder.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text()), sheet


def public_members() -> Iterator[tuple[str, object]]:
    """Yield all that a user may name: the public names, and the public members of those that are classes."""
    for module in (mlless, mlless.estimators, mlless.tracking):
        for name in module.__all__:
            yield from _with_members(name, getattr(module, name))


def _with_members(name: str, value: object) -> Iterator[tuple[str, object]]:
    yield name, value
    if isinstance(value, type) and not issubclass(value, Exception):
        for member, own in vars(value).items():
            if not member.startswith(("_", "set_")) and isinstance(
                own, FunctionType | property | classmethod
            ):
                yield f"{name}.{member}", own


@pytest.mark.parametrize(
    ("name", "value"), list(public_members()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_public_name_is_explained(name: str, value: object, site: Site) -> None:
    assert inspect.getdoc(value), name
    anchors = site.page(site.folder / "reference" / "python.html").anchors
    assert any(one.startswith("mlless.") and one.endswith(f".{name}") for one in anchors), name


def test_every_option_of_every_command_is_in_the_reference(site: Site) -> None:
    text = site.html("reference/commands.html")
    told = subprocess.run(
        [sys.executable, "-c", _LIST_OPTIONS], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    assert len(told) > 150
    for line in told:
        command, *flags = line.split()
        section = re.search(rf'<section id="{command}">(.*?)</section>', text, re.DOTALL)
        assert section, command
        for flag in flags:
            assert re.search(rf">{re.escape(flag)}<", section[1]), (command, flag)


# What typer itself makes of the commands, which the pages are not written from.
_LIST_OPTIONS = """
import typer.main
from mlless.cli.app import app

def walk(command, name):
    for child_name, child in getattr(command, "commands", {}).items():
        walk(child, f"{name}-{child_name}")
    if not getattr(command, "commands", {}):
        for one in command.params:
            flags = [flag for flag in one.opts if flag.startswith("--") and flag != "--help"]
            print(name, *(["/".join([*flags, *one.secondary_opts])] if flags else []))

walk(typer.main.get_command(app), "mlless")
"""


def test_every_setting_is_in_the_table_of_options() -> None:
    text = (DOCS / "reference" / "options.md").read_text()
    for name in OPTIONS:
        assert f"| `{name}` |" in text, name
    for table in TABLES:
        assert f"`[{table}]`" in text


def variables() -> set[str]:
    """Return the variables that the program reads, but for those of settings."""
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = (line for path in files for line in path.read_text().splitlines() if "environ" in line)
    named = {name for line in lines for name in _VARIABLE.findall(line)}
    constants = {
        found[1]
        for path in (ROOT / "src").rglob("*.py")
        for found in re.finditer(r'^_?[A-Z_]+ = "(MLLESS_[A-Z_]+)"', path.read_text(), re.MULTILINE)
    }
    return (named | constants) - {f"MLLESS_{name.upper()}" for name in OPTIONS}


def test_every_variable_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "environment.md").read_text()
    assert {"MLLESS_CONFIG", "MLLESS_LEASE", "MLLESS_CHANNEL_DIR"} <= variables()
    missing = {name for name in variables() if name not in text}
    assert not missing


def exit_codes() -> set[int]:
    """Return every code that a command may end with."""
    tree = [MLLessError]
    for kind in tree:
        tree += kind.__subclasses__()
    ours = {kind.exit_code for kind in tree if kind.__module__.startswith("mlless.")}
    return ours | {value for name, value in vars(codes).items() if name.isupper()} | {0}


def test_every_exit_code_has_a_section_with_cause_and_cure() -> None:
    text = (DOCS / "reference" / "exit-codes.md").read_text()
    sections = {
        int(found[1]): found[2]
        for found in re.finditer(r"^## Code (\d+): .*?\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    }
    assert set(sections) == exit_codes()
    for code, section in sections.items():
        if code:
            assert "**Cause.**" in section, code
            assert "**Cure.**" in section, code


def test_every_error_is_named_with_its_code() -> None:
    text = (DOCS / "reference" / "exit-codes.md").read_text()
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, MLLessError) and kind is not MLLessError:
            assert f"`{name}`" in text, name


@pytest.mark.parametrize(("page", "book"), [("tariffs", TARIFFS), ("worlds", WORLDS), ("experiments", PLANS)])
def test_every_tariff_world_and_experiment_has_a_section(page: str, book: object, site: Site) -> None:
    anchors = site.page(site.folder / "reference" / f"{page}.html").anchors
    names = book.names()  # type: ignore[attr-defined]
    assert len(names) >= 2
    assert set(names) <= anchors


@pytest.mark.parametrize("kind", [StepRecord, Summary, StepTimes])
def test_every_field_of_a_run_is_explained(kind: type[msgspec.Struct]) -> None:
    text = (DOCS / "reference" / "run-files.md").read_text()
    inner = (
        {"seconds", "members", "last_look", "system"} if kind is Summary else set()
    )  # for the program alone
    for name in {one.name for one in msgspec.structs.fields(kind)} - inner:
        assert f"`{name}`" in text, name


def test_every_extra_is_mentioned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "start.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(project["optional-dependencies"])
