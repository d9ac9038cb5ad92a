"""Draws runs side by side and writes a page of it that anyone can open.

``charts`` draws (the one place that needs Matplotlib), ``look`` gives colours and turns a figure into bytes,
``page`` puts the page together. What is drawn, ``report.recorded`` has read.
"""

from mlless.errors import not_installed

try:
    import jinja2  # noqa: F401 (only to say what is missing)
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise not_installed("a report", "matplotlib", "jinja2", extra="report") from error
