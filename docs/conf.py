"""How Sphinx builds the site: ``make docs``. Nothing is fetched for it, then or when a page is read."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

import site_parts  # noqa: E402
from docutils import nodes  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import mlless  # noqa: E402

project = "MLLess"
author = "The MLLess project"
project_copyright = "The MLLess project, Apache-2.0"
version = release = mlless.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
default_role = "py:obj"
smartquotes = False  # two hyphens of an option stay two
autodoc_typehints = "none"
autodoc_member_order = "bysource"
maximum_signature_line_length = 70
napoleon_google_docstring = False
napoleon_custom_sections = []

linkcheck_ignore = [r"^https?://(localhost|minio\.internal)"]  # examples

html_theme = "furo"
html_title = f"MLLess {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def _fill(app: Sphinx, document: str, source: list[str]) -> None:
    source[0] = site_parts.filled(source[0], Path(app.env.doc2path(document)))


def _dash(app: Sphinx, doctree: nodes.document) -> None:
    """Set a dash between a parameter and what it is; everywhere else two hyphens are meant."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> None:
    """Put the parts that follow from the program into their pages."""
    app.connect("source-read", _fill)
    app.connect("doctree-read", _dash)
