"""The page as text; what a browser makes of it is looked at in tests/integration."""

from __future__ import annotations

import io
import re
import shutil
import sys
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from mlless.billing.tariff import load_tariff
from mlless.channels.folder import Folder
from mlless.errors import ChannelError, UsageError
from mlless.job import Scaling
from mlless.locations import Directory
from mlless.report.comparison import charts, look
from mlless.report.comparison.page import PAGE, write_report
from mlless.report.recorded import read_runs
from mlless.run import Run

IBM = load_tariff("published-ibm")
pytestmark = pytest.mark.slow  # each draws all charts
PNG = b"\x89PNG\r\n\x1a\n"


def told(page):
    """Return the text of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the runs ``fixed`` and ``tuned`` and the report on them are."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def page(store, place, bill, job):
    """The page of two runs, one of them tuned."""
    tuned = {"bill": bill(2.0), "job": job(workers=4, tariff=IBM, scaling=Scaling(policy="economy"))}
    runs = [
        store(place / "fixed", {"bill": bill(4.0)}, price=0.1),
        store(place / "tuned", tuned, price=0.05, tuned=True),
    ]
    assert write_report(runs, place / "report") == f"{place}/report/{PAGE}"
    return (place / "report" / PAGE).read_text()


def test_it_says_what_came_of_the_runs(page):
    text = told(page)
    assert "All came to rmse 0.8323." in text
    assert "The cheapest was tuned ($1.55, 50% less than the next)." in text
    assert "whole run: money $4.00 $2.00 (× 0.50)" in text
    assert "workers 4 4 → 2" in text
    assert "functions $3.60 (90 GB-s) $1.80 (90 GB-s)" in text
    assert "What the tuner of tuned did The rule economy looked 2 times." in text
    assert "All stayed most of the time: before the knee (1 time)." in text
    assert "22 3, 4 because $0.0200 and 9.0 s to go, $0.0300 and 8.0 s if all stay" in text
    assert "22 leave because knee 9, speed base 12, speed slope -1, dollars 0.02," in text
    assert "workers 2 4 scaling.policy off economy" in text


def test_every_chart_is_on_the_page_and_lies_beside_it(page, place):
    files = {path.name for path in (place / "report").iterdir()}
    linked = set(re.findall(r'href="([^"#]+)"', page))
    metrics = {
        f"{m}-over-{a}.png" for m in ("training-rmse", "held-out-rmse") for a in ("steps", "time", "money")
    }
    others = {"workers", "cost", "bytes-published", "bytes-read", "bill", "time-split"}
    of_runs = {"time-split-1", "time-split-2", "decisions-2", "speed-2"}
    assert linked == metrics | {f"{name}.png" for name in others | of_runs}
    assert files == linked | {PAGE}
    assert all((place / "report" / name).read_bytes().startswith(PNG) for name in linked)
    assert page.count("<svg") == len(linked)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(drawing.replace("xlink:href", "href"))


def test_it_asks_for_nothing_from_elsewhere(page):
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#|[a-z0-9-]+\.png")', page)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_are_unique(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)) <= {(one, "") for one in ids} | {
        ("", one) for one in ids
    }


def test_every_colour_is_one_of_the_theme(page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"(?:fill|stroke): ?#[0-9a-f]{6}", drawings)
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", drawings))
    for dark in (False, True):
        assert used <= {rule.split(":")[0] for rule in look.theme(dark=dark)}


def test_the_same_runs_give_the_same_bytes(page, place):
    before = {path.name: path.read_bytes() for path in (place / "report").iterdir()}
    write_report([place / "fixed", place / "tuned"], place / "again")
    assert before == {path.name: path.read_bytes() for path in (place / "again").iterdir()}


def test_a_former_report_is_replaced_and_nothing_else_touched(page, place, tmp_path):
    shutil.copytree(place / "report", tmp_path / "report")
    (tmp_path / "report" / "holiday.png").write_bytes(PNG)
    write_report([place / "fixed"], tmp_path / "report")
    assert (tmp_path / "report" / "holiday.png").read_bytes() == PNG
    assert not (tmp_path / "report" / "decisions-2.png").exists()


def test_a_report_that_failed_half_way_can_be_written_again(stored, tmp_path, monkeypatch):
    put, written = Folder.put, []

    def failing(self, path, data):
        written.append(path)
        if len(written) == 3:
            raise ChannelError("disk full")
        put(self, path, data)

    run = stored()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", failing)
        with pytest.raises(ChannelError, match="disk full"):
            write_report([run], tmp_path / "report")
    assert written[0] == PAGE
    write_report([run], tmp_path / "report")
    linked = re.findall(r'href="([^"#]+)"', (tmp_path / "report" / PAGE).read_text())
    assert {path.name for path in (tmp_path / "report").iterdir()} == {*linked, PAGE}


def test_the_names_of_all_runs_are_on_every_picture(stored, tmp_path):
    names = [f"ml-20m-isp-workers-{number:02d}-seed-1-and-what-else-was-tried" for number in range(9)]
    runs = read_runs([stored(name) for name in names])
    for chart in (charts.workers_chart(runs), charts.bytes_chart(runs, read=True), charts.split_chart(runs)):
        figure = chart.figure
        figure.set_figheight(figure.get_figheight() + chart.legend)
        with look.styled():
            figure.savefig(io.BytesIO(), format="png")
            (legend,) = figure.legends
            box, frame = legend.get_window_extent(), figure.bbox
        assert len(legend.get_texts()) == len(chart.keys)
        assert (box.x0, box.y0) >= (frame.x0, frame.y0)
        assert box.x1 <= frame.x1
        assert box.y1 <= frame.y1 - 0.3 * frame.height  # there is room for the chart as well
        assert figure.axes[0].bbox.height > 0.25 * frame.height


def test_a_users_own_settings_change_nothing(page, place, tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "savefig.bbox": "tight", "xtick.labelsize": 30}):
        write_report([place / "fixed", place / "tuned"], tmp_path / "report")
        assert matplotlib.rcParams["text.usetex"] is True
    assert (tmp_path / "report" / PAGE).read_text() == page.replace(str(place), str(place))
    for path in (place / "report").glob("*.png"):
        assert (tmp_path / "report" / path.name).read_bytes() == path.read_bytes()


def test_runs_are_given_as_they_are_returned_or_one_alone(stored, tmp_path, monkeypatch, summary):
    monkeypatch.chdir(tmp_path)
    folder = stored()
    assert write_report(Run(Directory(folder), summary())) == f"report/{PAGE}"
    assert write_report([str(folder)], "second") == f"second/{PAGE}"
    with pytest.raises(UsageError, match="a file is in the report's place"):
        write_report(folder, folder / "summary.json")


@pytest.mark.parametrize("name", [PAGE, "thesis.tex"])
def test_something_else_in_its_place_is_kept(stored, tmp_path, name):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / name).write_text("<html>mine</html>")
    with pytest.raises(UsageError, match="something else is in the report's place"):
        write_report([stored()], tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == [name]


def test_names_are_shown_and_not_obeyed(stored, tmp_path):
    names = [
        "<script>alert(1)</script>",
        "_hidden",
        "$x^2$",
        "a&b",
        "%s {0} {{ 7 * 7 }}",
        '#1a6fb5 id="q url(#x)',
        "\u96ea",
    ]
    write_report([stored(name.replace("/", "|")) for name in names], tmp_path / "report")
    page = (tmp_path / "report" / PAGE).read_text()
    assert "<script" not in page
    for name in (
        "&lt;script&gt;alert(1)&lt;|script&gt;",
        "_hidden",
        "$x^2$",
        "a&amp;b",
        "{{ 7 * 7 }}",
        "#1a6fb5 id=",
        "\u96ea",
    ):
        assert page.count(name) > 5, name
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(drawing.replace("xlink:href", "href"))


def test_a_run_of_one_step_and_no_metric(stored, tmp_path, job, step):
    folder = stored(changes={"steps": 1, "heldout": {}, "train_loss": None, "job": job(held_out=0)})
    lines = (folder / "history.jsonl").read_bytes().splitlines()
    (folder / "history.jsonl").write_bytes(
        lines[1].replace(b'"train_loss":1.0', b'"train_loss":null') + b"\n"
    )
    write_report([folder], tmp_path / "report")
    text = told((tmp_path / "report" / PAGE).read_text())
    assert "not to be compared" in text
    assert "4 epochs done" in text


def test_more_runs_than_can_be_told_apart_are_refused(stored, tmp_path):
    with pytest.raises(UsageError, match=f"expected 1 to {look.MOST}, found {look.MOST + 1}"):
        write_report([stored(str(number)) for number in range(look.MOST + 1)], tmp_path / "report")
    with pytest.raises(UsageError, match="found 0"):
        write_report([], tmp_path / "report")


def test_the_command_says_what_to_install(stored, monkeypatch, capsys):
    from mlless import cli

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("mlless.report.comparison")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", ["mlless", "report", str(stored())])
    with pytest.raises(SystemExit):
        cli.main()
    assert "pip install 'mlless[report]'" in capsys.readouterr().err
