"""Both pages in a browser: text can be read, nothing is clipped, no error, and paper has every figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from concise_rl.evaluation.validation import entry_of
from concise_rl.reporting.compare import compare
from concise_rl.reporting.html import write_report
from concise_rl.reporting.plots import metric_figures, zero_metrics

from .compare.chromium import Chromium, find
from .compare.fake import evaluation, write_run
from .fake import AFTER, BEFORE, DIFFERENCE, fake_pairs, fake_run

pytestmark = pytest.mark.skipif(find() is None, reason="no chromium: apt-get install chromium")

LINES = [{"step": record.batch.step + 1} | record.metrics for record in fake_run(8)]
LOWEST_CONTRAST = 4.5

AUDIT = """
(() => {
  const numbers = (colour) => { const found = colour.match(/[\\d.]+/g).map(Number);
                                return found.length < 4 ? [...found, 1] : found; };
  const luminance = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
    const v = colour[k] / 255;
    return sum + weight * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (place) => {
    for (let here = place; here; here = here.parentElement) {
      const colour = numbers(getComputedStyle(here).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const faint = [], beyond = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = texts.nextNode());) {
    const place = text.parentElement;
    if (!text.textContent.trim() || place.closest("script, style") || !place.getBoundingClientRect().width) continue;
    const svg = place.closest("svg");
    let opacity = 1;
    for (let here = place; here; here = here.parentElement) opacity *= Number(getComputedStyle(here).opacity);
    const [ink, under] = [numbers(svg ? getComputedStyle(place).fill : getComputedStyle(place).color),
                          ground(svg ? svg.parentElement : place)];
    const mixed = [0, 1, 2].map((k) => ink[k] * ink[3] * opacity + under[k] * (1 - ink[3] * opacity));
    const [low, high] = [luminance(mixed), luminance(under)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < LOWEST) faint.push([text.textContent.trim().slice(0, 40), contrast]);
  }
  document.querySelectorAll("main *").forEach((place) => {
    const box = place.getBoundingClientRect();
    const out = box.width && box.right > innerWidth + 1 && !place.closest(".scroll, svg");
    if (out) beyond.push(place.outerHTML.slice(0, 80));
  });
  return { faint, beyond };
})()
""".replace("LOWEST", str(LOWEST_CONTRAST))


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    start = evaluation()
    validation = [entry_of(step, evaluation(saving=step / 16), start) for step in (0, 4, 8)]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path, title="a run", columns={"before": BEFORE, "after": AFTER}, difference=DIFFERENCE, metrics=LINES,
        validation=validation, pairs=fake_pairs(), config={"a": 1}, facts={"command": "concise-rl train"},
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    return compare([write_run(folder / f"{m}-0", method=m) for m in ("hapo", "grpo")], folder / "compare.html").page


@pytest.fixture(params=["report", "comparison"])
def page(request) -> Path:
    return request.getfixturevalue(request.param)


DRAWN = "document.querySelectorAll('.plot .main-svg').length > 0"
EVERY = "[...document.querySelectorAll('.plot')]"
SCROLL = f"""(async () => {{ for (const place of {EVERY}) {{ place.scrollIntoView();
             await new Promise((done) => setTimeout(done, 60)); }} scrollTo(0, 0); }})()"""


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_text_can_be_read_and_nothing_is_clipped(page: Path, width: int, dark: bool) -> None:
    with Chromium(width, 844, dark=dark) as browser:
        browser.open(page)
        browser.wait(DRAWN)
        browser.ask(SCROLL)
        found = browser.ask(AUDIT)
        assert found == {"faint": [], "beyond": []}
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.messages == []


def test_paper_has_every_figure_in_light_colours(page: Path) -> None:
    with Chromium(dark=True) as browser:
        browser.open(page)
        browser.wait(DRAWN)
        browser.ask("dispatchEvent(new Event('beforeprint'))")
        printed = f"{EVERY}.filter((place) => place.id !== 'lengths-of-two')"
        assert browser.ask(f"{printed}.every((place) => place.querySelector('.main-svg'))")
        assert browser.ask(f"{printed}.every((place) => place.layout.font.color === '#1b1f24')")
        assert browser.ask(f"{printed}.every((place) => place.layout.width <= 680)")
        browser.ask("dispatchEvent(new Event('afterprint'))")
        assert browser.ask("document.querySelector('.plot').layout.font.color") == "#e6e9ed", "the screen is dark again"
        assert browser.messages == []


def test_the_curve_on_the_test_split_has_intervals(report: Path) -> None:
    with Chromium() as browser:
        browser.open(report)
        browser.wait(DRAWN)
        curve: Callable[[str], object] = lambda what: browser.ask(  # noqa: E731
            f"{EVERY}[1].data.find((trace) => trace.name === 'test split on the way').{what}"
        )
        assert curve("x") == [0, 4, 8]
        assert min(curve("error_y.array")) > 0  # type: ignore[type-var]
        assert browser.ask(f"{EVERY}[1].layout.xaxis.dtick") == 1, "no mark between two steps"


def test_what_was_zero_throughout_is_named_and_not_drawn() -> None:
    lines = [line | {"tools/failed_frac": 0.0} for line in LINES]
    titles = [figure["title"] for figure in metric_figures(lines)]
    assert {"unscorable", "tools/failed"} <= set(zero_metrics(lines))
    assert not any(title.startswith("unscorable") for title in titles)
    assert any(title.startswith("truncated") for title in titles)
