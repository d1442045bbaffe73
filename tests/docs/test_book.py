"""The book as a reader gets it: built strictly, complete, made from the code, and at home on a disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from browser import Browser, browser, needs_browser
from bs4 import BeautifulSoup, Tag
from filelock import FileLock

from cellwise import cells
from cellwise.understand.complexity import Sizes, complexity
from cellwise.understand.views import view

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
CHAPTERS = {
    "recurrent-networks": "Recurrent networks",
    "rnn": "RNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "your-own-cell": "Write your own cell",
    "cost": "What it costs",
    "vanishing-gradients": "Why gradients vanish",
    "inside": "Inside a network",
    "forecasting": "Forecasting",
    "how-it-works": "How it works",
    "gallery": "A gallery of cells",
    "reference": "Reference",
}
CELLS = ("rnn", "lstm", "gru")
SHOWN = ("lru", "mgu2", "fs-lstm")  # of the gallery
REPORTS = {  # the chapters that show one, and what its title says
    "forecasting": "forecast",
    "classification": "classifier",
    "tagging": "Tags",
    "language-models": "Language model",
    "translation": "Translation",
    "speech": "Speech",
}
QUESTIONS = {
    "rnn": "What is the vanishing gradient problem?",
    "lstm": "How do the LSTM’s gates help?",
    "gru": "What is the difference between LSTM and GRU?",
}


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of the built site: built once, also where several processes share the tests; or that of `make docs`,
    where CELLWISE_BOOK names it."""
    if built := os.environ.get("CELLWISE_BOOK"):
        return Path(built).resolve(strict=True)
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "book"
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            command = [sys.executable, "-m", "sphinx", "-E", "-W", "-q", "-b", "html"]
            command += ["-D", f"gallery_cells={','.join(SHOWN)}", str(DOCS), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "built").touch()
    return folder


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """Which of several processes this is; "master" if it is the only one."""
    return getattr(request.config, "workerinput", {"workerid": "master"})["workerid"]


def chapter(book: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((book / f"{name}.html").read_text("utf8"), "html.parser")


def section(page: BeautifulSoup, title: str) -> Tag:
    """The section under a heading."""
    found = [each for each in page.find_all(["h1", "h2", "h3"]) if each.get_text().removesuffix("¶") == title]
    assert len(found) == 1, title
    return found[0].parent


def test_every_chapter_is_there_and_in_the_contents(book: Path) -> None:
    contents = chapter(book, "index").select(".sidebar-tree a")
    listed = {str(link["href"]): link.get_text() for link in contents}
    for name, title in CHAPTERS.items():
        assert listed[f"{name}.html"] == title
        assert chapter(book, name).h1.get_text().removesuffix("¶") == title


@pytest.mark.parametrize("name", CELLS)
def test_a_cells_chapter_has_its_equations(book: Path, name: str) -> None:
    page = chapter(book, name)
    for title, kind in (("Equations", "latex"), ("Gradient", "gradient-latex")):
        lines = section(page, title).find("mtable").find_all("mtr", recursive=False)
        latex = view(name, kind).splitlines()[1:-1]
        assert len(lines) == len(latex)
        for line, written in zip(lines, latex, strict=True):
            assert (line.get_text().count("⊙"), line.get_text().count("tanh")) == (
                written.count(r"\odot"),
                written.count(r"\tanh"),
            )


def test_the_gallery_lists_every_cell_and_shows_each(book: Path) -> None:
    page = chapter(book, "gallery")
    links = {link.get_text(): link["href"] for link in page.select("td a")}
    assert set(links) == set(cells.names())
    for name in SHOWN:
        shown = page.select_one(links[name])
        assert shown.h3.get_text().removesuffix("¶") == name
        assert shown.find("mtable").get_text().count("⊙") == view(name, "latex").count(r"\odot")
        assert shown.select_one("details figure.diagram svg")
        fields = [each.get_text() for each in shown.select("dl.field-list dt")]
        assert {"parameters:", "gates:", "states:", "depth, forward:"} <= set(fields)
    assert "clockwork RNN" in page.get_text()  # of those that cannot be written


@pytest.mark.parametrize("name", CELLS)
def test_a_cells_chapter_draws_it(book: Path, name: str) -> None:
    step, unrolled = section(chapter(book, name), "Diagram").select("figure.diagram svg")
    equations = cells.get(name).equations
    assert unescape(step.desc.get_text()).endswith(equations)
    assert "4 steps" in unrolled.find("title").get_text()
    assert not step.find("style")  # the page's own style, which follows its switch of light and dark


@pytest.mark.parametrize("name", CELLS)
def test_a_cells_chapter_has_definition_cost_demo_and_question(book: Path, name: str) -> None:
    page = chapter(book, name)
    assert section(page, "Definition").select_one(".definition pre").get_text().strip() == view(
        name, "source"
    )
    cost = section(page, "Cost").table.get_text()
    parameters = complexity(name).parameters.at(**Sizes().letters)
    assert f"{parameters:,}" in cost and "depth, backward" in cost
    demo = section(page, "A demo").select_one(".result").get_text()
    outputs = [float(each) for each in re.findall(r"Output: (\S+)", demo)]
    assert outputs == pytest.approx([0, 1, 1, 0], abs=0.05)
    measured = section(page, QUESTIONS[name]).select_one(".findings").get_text()
    assert 3 <= len(re.findall(r"\w\)?\.(?= |$)", measured)) <= 4  # sentences
    assert "Longest lags learned within" in measured
    assert section(page, "Theory").get_text().count(".") > 5


def test_results_stand_under_the_code_that_made_them(book: Path) -> None:
    for name in ("recurrent-networks", "your-own-cell", "forecasting", "how-it-works", "inside"):
        page = chapter(book, name)
        assert len(page.select(".ran")) >= 2 and len(page.select(".result")) >= 2
    own = chapter(book, "your-own-cell")
    assert "UnknownGateError: Wrong asks for the gate 'q'" in own.get_text()
    assert len(own.select("figure.diagram svg")) == 2


def test_how_it_works_ends_in_this_machines_code(book: Path) -> None:
    page = chapter(book, "how-it-works")
    assert "llvm.fma" in section(page, "5. LLVM").get_text()
    machine_code = section(page, "6. Machine code").get_text()
    assert re.search(r"vfmadd\d+ps|fmla", machine_code)
    differences = re.findall(r"largest difference of \w+: +([\d.e-]+)", page.get_text())
    assert len(differences) == 2 and all(float(each) < 1e-3 for each in differences)


def test_charts_and_pages_lie_in_the_site(book: Path) -> None:
    for name in ("gradients", "memory", "scaling"):
        assert (book / "pictures" / f"{name}.svg").read_text("utf8").count("<path") > 50
    for name in ("letters", "births"):
        assert len((book / "pages" / f"{name}.html").read_text("utf8")) > 20_000


@pytest.mark.parametrize("name", REPORTS)
def test_a_chapter_shows_the_report_of_its_own_run(book: Path, name: str) -> None:
    page = chapter(book, name)
    (frame,) = page.select(".page iframe")
    assert [link["href"] for link in page.select(".page + .legend a")] == [frame["src"]]
    report = BeautifulSoup((book / str(frame["src"])).read_text("utf8"), "html.parser")
    assert REPORTS[name] in report.h1.get_text()
    assert len(report.encode()) > 20_000


def test_the_reference_has_every_public_name(book: Path) -> None:
    import cellwise

    page = chapter(book, "reference")
    there = {str(each.get("id")) for each in page.select("dt[id]")}
    names = [
        name for name in cellwise.__all__ if name not in ("__version__", "CellwiseError", "CellwiseWarning")
    ]
    missing = [name for name in names if not any(each.endswith(f".{name}") for each in there)]
    assert [name for name in missing if name != "cells"] == []


def linked(page: BeautifulSoup) -> Iterator[str]:
    """What a browser fetches to show a page."""
    for tag, attribute in (("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")):
        yield from (str(each[attribute]) for each in page.find_all(tag) if each.get(attribute))
    for link in page.find_all("link"):
        if not {"canonical", "next", "prev", "author", "search", "index"} & set(link.get("rel", [])):
            yield str(link["href"])


def test_nothing_is_fetched_from_elsewhere(book: Path) -> None:
    pages = list(book.rglob("*.html"))
    assert len(pages) > len(CHAPTERS)
    for path in pages:
        for address in linked(BeautifulSoup(path.read_text("utf8"), "html.parser")):
            assert not re.match(r"(\w+:)?//", address), (path.name, address)
            if not address.startswith("data:"):
                assert (path.parent / address.partition("?")[0]).exists(), (path.name, address)
    for path in book.rglob("*.css"):
        text = path.read_text("utf8")
        for address in re.findall(r"""(?:url\(\s*|@import\s+(?!url))['"]?([^'"()\s;]{2,})""", text):
            assert not re.match(r"(https?:)?//", address), (path.name, address)


def test_links_between_pages_lead_somewhere(book: Path) -> None:
    for name in CHAPTERS:
        for link in chapter(book, name).select("article a[href]"):
            target, _, anchor = str(link["href"]).partition("#")
            if re.match(r"\w+:", target):
                continue
            path = book / target if target else book / f"{name}.html"
            assert path.exists(), (name, target)
            if name == "gallery" and anchor.startswith("cell-"):
                continue  # of which this book draws three
            if anchor:
                assert f'id="{anchor}"' in path.read_text("utf8"), (name, link["href"])


def go(page: Browser, address: str, width: int, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.send("Emulation.setEmulatedMedia", features=[scheme])
    page.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    page.send("Page.navigate", url=address)
    page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")


# What lies outside the window and cannot be brought into it by scrolling its own box.
OUTSIDE = """[...document.querySelectorAll("article *")].filter((e) => {
  if (e.getBoundingClientRect().right <= innerWidth + 1 || !e.checkVisibility()) return false;
  for (let box = e.parentElement; box && box.tagName !== "ARTICLE"; box = box.parentElement) {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    if (scrolls && box.getBoundingClientRect().right <= innerWidth + 1) return false;
  }
  return true;
}).map((e) => e.outerHTML.slice(0, 120))"""


@needs_browser
def test_in_a_browser_from_disk(book: Path) -> None:
    with browser() as page:
        for name in CHAPTERS:
            go(page, (book / f"{name}.html").as_uri(), width=600)
            assert page.run(OUTSIDE) == [], f"{name} is wider than the window"
        assert page.complaints == []
        assert [each for each in page.requests if not each.startswith(("file:", "data:", "about:"))] == []


@needs_browser
def test_diagrams_follow_light_and_dark(book: Path) -> None:
    colour = "getComputedStyle(document.querySelector('.diagram svg .line')).stroke"
    with browser() as page:
        go(page, (book / "lstm.html").as_uri(), width=1200)
        light = page.run(colour)
        go(page, (book / "lstm.html").as_uri() + "?", width=1200, dark=True)
        dark = page.run(colour)
        page.run("document.body.dataset.theme = 'light'")  # a reader's choice goes before the system's
        assert light != dark and page.run(colour) == light


@needs_browser
def test_the_search_works_from_disk(book: Path) -> None:
    with browser() as page:
        go(page, (book / "search.html").as_uri() + "?q=peephole", width=1200)
        page.wait("document.querySelectorAll('#search-results li a').length > 0")
