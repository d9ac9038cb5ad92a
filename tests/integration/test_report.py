"""A report on real runs, as a browser shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.jobs import job
from playwright.sync_api import Browser, Page

from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.report.comparison.page import PAGE, write_report

# Contrast as WCAG 2 has it, of every piece of text against the page.
CONTRASTS = """
() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => parts(colour).slice(0, 3)
    .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const page = light(getComputedStyle(document.body).backgroundColor);
  const against = colour => {
    const [low, high] = [light(colour), page].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const all = (which, style) => [...document.querySelectorAll(which)].map(e => getComputedStyle(e)[style]);
  const text = [...all('h1, h2, p, th, td, figcaption, summary, a, li', 'color'), ...all('svg text', 'fill')];
  const lines = all('.keys i', 'borderTopColor');
  return {text: Math.min(...text.map(against)), lines: Math.min(...lines.map(against)), page};
}
"""
# Text of charts that sticks out of its chart, by more than a pixel.
CUT_OFF = """
() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})
"""


@pytest.fixture(scope="module")
def report(ratings: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs: BSP, ISP, and ISP with a tuner."""
    folder = tmp_path_factory.mktemp("report")
    wishes = {"bsp": {"sync": "bsp"}, "isp": {}, "tuned": {"tuner": "economy", "min_workers": 2}}
    for name, wish in wishes.items():
        spec = job(ratings, workers=4, epochs=12, patience=12, tariff="aws-lambda-x86", **wish)
        run_job(spec, ratings, folder / "runs" / name)
    write_report([folder / "runs" / name for name in wishes], folder / "page")
    return folder / "page" / PAGE


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report in a tab, which fails the test if the page asks for anything or complains."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(report.as_uri())
    yield tab
    tab.close()
    assert asked == [report.as_uri()]
    assert complaints == []


def test_everything_is_there(page: Page) -> None:
    assert page.title() == "bsp, isp, tuned – MLLess report"
    text = page.inner_text("main")
    for title in (
        "At a glance", "Training RMSE", "Held-out RMSE", "Workers and money", "What the tuner of tuned did",
        "Time", "Bytes", "Bill", "Settings",
    ):  # fmt: skip
        assert title in text
    sizes = page.eval_on_selector_all("svg", "all => all.map(one => one.getBoundingClientRect().height)")
    assert len(sizes) >= 16
    assert min(sizes) > 60
    # Names of runs stand in every legend of runs, and rows open.
    assert page.locator(".keys li", has_text="tuned").count() >= 4
    looks = page.locator("details", has_text="look")
    assert not looks.locator("table").is_visible()
    looks.locator("summary").click()
    assert looks.locator("table").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_themes(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    found = page.evaluate(CONTRASTS)
    assert found["text"] >= 4.5
    assert found["lines"] >= 3
    assert (found["page"] < 0.1) == (scheme == "dark")


@pytest.mark.parametrize("width", [360, 800, 1280, 2400])
def test_it_fits_every_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_OFF) == []


def test_a_picture_opens(browser: Browser, report: Path) -> None:
    tab = browser.new_page()
    tab.goto(report.as_uri())
    tab.get_by_role("link", name="PNG").first.click()
    tab.wait_for_url("**/*.png")
    assert tab.evaluate("document.images[0].naturalWidth") > 600
    tab.close()
