"""Report pages in a real browser: on small and large screens, light and dark, on paper, without a network.

With LIFTGATE_SCREENSHOTS=FOLDER each page's picture is written there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is in the extra dev")

CHROMIUM = Path("/usr/bin/chromium")
# Read here: the tests' own environment is emptied of LIFTGATE_ names.
SCREENSHOTS = os.environ.get("LIFTGATE_SCREENSHOTS")
KINDS = ("two", "hundred", "first", "disputed", "nan", "hostile")
PROFILES = {
    "phone-320": {"viewport": {"width": 320, "height": 640}},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "desktop-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}
MOST_PAPER = 30

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium: apt-get install chromium")

# Text on a translucent ground is held against what the ground looks like.
_CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(numbers(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, a]) =>
      [r, g, b].map((over, index) => over * a + under[index] * (1 - a)), [255, 255, 255]);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || !element.checkVisibility() || element.closest("defs, title, desc")) continue;
    const style = getComputedStyle(element);
    const ink = numbers(element instanceof SVGElement ? style.fill : style.color);
    const pair = [luminance(ink), luminance(ground(element.closest(":not(svg *)")))].sort((a, b) => a - b);
    const ratio = (pair[1] + 0.05) / (pair[0] + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} "${element.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return found;
}"""

_OUTSIDE = """() => [...document.querySelectorAll("main *")]
  .filter((element) => element.checkVisibility() && !element.closest(".scroll, svg, .unseen"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 80))"""

_TOO_SMALL = """() => [...document.querySelectorAll("p, li, td, th, dd, dt, figcaption, caption, span, svg text")]
  .filter((element) => element.checkVisibility() && element.textContent.trim() && !element.closest(".matrix"))
  .filter((element) => parseFloat(getComputedStyle(element).fontSize) *
    (element.ownerSVGElement ? element.ownerSVGElement.getBoundingClientRect().width /
      element.ownerSVGElement.viewBox.baseVal.width : 1) < 10)
  .map((element) => element.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(report_samples, tmp_path_factory):
    """A folder with a page of each kind."""
    folder = tmp_path_factory.mktemp("reports")
    for kind in KINDS:
        (folder / f"{kind}.html").write_text(report_samples.SAMPLES[kind]().page(), encoding="utf-8")
    return folder


def opened(context, path, trouble):
    """Open a page from disk and note every complaint and every request for anything else."""
    page = context.new_page()
    page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    page.on("console", lambda line: trouble.append(line.text))
    page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
    page.on("request", lambda asked: trouble.append(asked.url) if asked.url[:5] not in ("file:", "data:") else None)
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_can_be_read_on_every_screen(browser, pages, kind, profile):
    context, trouble = browser.new_context(**PROFILES[profile], offline=True), []
    try:
        page = opened(context, pages / f"{kind}.html", trouble)
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS, f"report-{kind}-{profile}.png"), full_page=True)
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        assert page.evaluate(_OUTSIDE) == []
        assert page.evaluate(_CONTRAST) == []
        assert page.evaluate(_TOO_SMALL) == []
        broken = "[...document.images].filter((image) => !image.naturalWidth).map((image) => image.alt)"
        assert page.evaluate(broken) == []
        page.locator("nav a").last.click()
        assert page.url.endswith("#lineage")
        assert trouble == []
    finally:
        context.close()


def test_a_page_reads_the_same_without_script(browser, pages):
    context = browser.new_context(java_script_enabled=False, offline=True)
    try:
        page = opened(context, pages / "two.html", [])
        assert page.locator("h1").inner_text().startswith("Run 2026-11-20-mobile-v3 is shown to be better")
        page.locator("summary").first.click()
        assert page.locator("details table").first.is_visible()
    finally:
        context.close()


@pytest.mark.parametrize("kind", ["two", "hundred"])
def test_a_page_can_be_printed(browser, pages, kind):
    context = browser.new_context(color_scheme="dark", offline=True)
    try:
        page = opened(context, pages / f"{kind}.html", [])
        paper = page.pdf(format="A4", prefer_css_page_size=True)
        assert 3 <= paper.count(b"/Type /Page\n") <= MOST_PAPER
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 36, 48)"
        assert page.evaluate(_CONTRAST) == []
        assert not page.locator("nav").is_visible()
    finally:
        context.close()
