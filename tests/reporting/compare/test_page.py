"""The comparison's page in a browser: drawn, filtered, searched, on a phone and in the dark, and safe from its text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concise_rl.evaluation import Evaluation
from concise_rl.reporting.compare import compare

from .chromium import Chromium, find
from .fake import HOSTILE, write_run

pytestmark = pytest.mark.skipif(find() is None, reason="no chromium: apt-get install chromium")

FRONTIER = ["mixtures of the compared"]
"""The task has no known frontier."""

READY = "document.documentElement && document.documentElement.dataset.readyMs"
SEARCH = "(query.value = {!r}, query.dispatchEvent(new Event('input')), new Promise((done) => setTimeout(done, 400)))"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    runs = [
        write_run(folder / name, method=name[:4], seed=k) for k, name in enumerate(("hapo <b>0", "grpo-1", "kimi-2"))
    ]
    return compare(runs, folder / "compare.html").page


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture
def wide(browser: Chromium, page: Path) -> Iterator[Chromium]:
    browser.messages.clear()
    browser.open(page)
    browser.wait(READY)
    yield browser
    assert browser.messages == []


def rows(page: Path, run: str, which: str) -> Evaluation:
    return Evaluation.load(page.parent / run / f"evaluation-{which}.jsonl")


def choose(browser: Chromium, **choices: str) -> None:
    for name, value in choices.items():
        browser.ask(f"(document.getElementById({name!r}).value = {value!r}, document.getElementById({name!r})"
                    ".dispatchEvent(new Event('change')), new Promise((done) => setTimeout(done, 300)))")  # fmt: skip


def count(browser: Chromium) -> tuple[int, int]:
    some, everything = browser.ask("document.getElementById('count').textContent").split(" of ")
    return int(some), int(everything)


def test_every_figure_is_drawn_as_one_scrolls(wide: Chromium) -> None:
    every = "[...document.querySelectorAll('.plot')]"
    wide.ask(f"(async () => {{ for (const place of {every}) {{ place.scrollIntoView(); "
             "await new Promise((done) => setTimeout(done, 60)); } })()")  # fmt: skip
    wide.wait(f"{every}.every((place) => place.querySelector('.main-svg .trace, .main-svg .boxes, .main-svg .bars'))")
    assert wide.ask(f"{every}.length") >= 9
    assert wide.ask("document.querySelectorAll('.plot img').length") == 0, "pictures gave way to figures"


def test_filters_show_what_they_say(wide: Chromium, page: Path) -> None:
    choose(wide, a="0", b="2")
    first = {(row.prompt_id, row.sample): row for row in rows(page, "grpo-1", "before").rows}
    pairs = [(first[row.prompt_id, row.sample], row) for row in rows(page, "grpo-1", "after").rows]
    expected = {
        "all": len(pairs),
        "worse": sum(a.correct and not b.correct for a, b in pairs),
        "better": sum(b.correct and not a.correct for a, b in pairs),
        "wrong": sum(not b.correct and not a.correct for a, b in pairs),
        "shorter": sum(b.length < a.length for a, b in pairs),
        "longer": sum(b.length > a.length for a, b in pairs),
        "cut": sum(b.truncated for _, b in pairs),
    }
    for name, number in expected.items():
        choose(wide, filter=name)
        assert count(wide) == (number, len(pairs)), name
        assert wide.ask("document.querySelectorAll('.problem').length") == min(10, number)
    choose(wide, filter="all", order="saving")
    best = max(pairs, key=lambda pair: pair[0].length - pair[1].length)
    assert best[0].prompt == wide.ask("document.querySelector('.problem .prompt').textContent")
    wide.ask("document.getElementById('more').click()")
    assert wide.ask("document.querySelectorAll('.problem').length") == 20


def test_search_finds_prompts_and_completions_and_marks_them(wide: Chromium) -> None:
    wide.ask(SEARCH.format("What is 41 +"))
    assert count(wide)[0] == 1
    assert wide.ask("document.querySelector('.problem mark').textContent") == "What is 41 +"
    wide.ask(SEARCH.format("nobody wrote this"))
    assert count(wide)[0] == 0
    assert wide.ask("document.getElementById('more').hidden")


def test_what_a_model_wrote_is_text(wide: Chromium) -> None:
    wide.ask(SEARCH.format("window.hacked"))
    assert count(wide)[0] == 1, "the hostile completion is there"
    shown = wide.ask("document.querySelector('.problem .answer pre').textContent")
    assert shown == HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\x202e")
    assert wide.ask("document.querySelectorAll('.browser img, .browser script').length") == 0
    assert wide.ask("window.hacked === undefined")
    assert wide.ask("document.querySelector('tr[data-run=\"1\"] th').textContent").startswith("hapo <b>0")
    assert wide.ask("page.runs[1]") == "hapo <b>0"


def test_a_run_can_be_switched_off(wide: Chromium) -> None:
    wide.ask("document.querySelector('.chips button[data-run=\"2\"]').click()")
    assert wide.ask("[...document.querySelectorAll('tr[data-run=\"2\"], li[data-run=\"2\"]')]"
                    ".every((row) => getComputedStyle(row).display === 'none')")  # fmt: skip
    assert wide.ask("document.querySelectorAll('tr[data-run=\"2\"]').length") > 0
    visible = "document.querySelector('.plot').data.filter((trace) => trace.visible).map((trace) => trace.name)"
    assert wide.ask(visible) == [*FRONTIER, "Pareto front", "before training", "hapo &lt;b&gt;0", "kimi-2"]
    wide.ask("document.querySelector('.chips button[data-run=\"2\"]').click()")
    assert len(wide.ask(visible)) == len(FRONTIER) + 5


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(page: Path, dark: bool) -> None:
    with Chromium(390, 844, dark=dark) as phone:
        phone.open(page)
        phone.wait(READY)
        assert phone.ask("document.documentElement.scrollWidth") == 390
        first, second = phone.ask("[...document.querySelectorAll('.problem .answer')].slice(0, 2)"
                                  ".map((card) => card.getBoundingClientRect().top)")  # fmt: skip
        assert second > first, "the two completions stand below one another"
        page_colour, ink = phone.ask("(({ backgroundColor, color }) => [backgroundColor, color])"
                                     "(getComputedStyle(document.body))")  # fmt: skip
        brightness = [sum(map(int, colour[4:-1].split(","))) for colour in (page_colour, ink)]
        assert (brightness[0] < brightness[1]) == dark
        figure_text = phone.ask("document.querySelector('.plot').layout.font.color")
        assert figure_text == ("#e6e9ed" if dark else "#1b1f24"), "figures follow the page"
        assert phone.messages == []
