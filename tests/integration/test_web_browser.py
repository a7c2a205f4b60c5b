"""A real browser, as a phone, on a desk, and with JavaScript off: photo, answer, correction.

With LIFTGATE_SCREENSHOTS=FOLDER every page's picture is written there; those in docs/screenshots
are made so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.registry import Registry

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is in the extra dev")

CHROMIUM = Path("/usr/bin/chromium")
TESTS = Path(__file__).parents[1]
# Read here: the tests' own environment is emptied of LIFTGATE_ names.
SCREENSHOTS = os.environ.get("LIFTGATE_SCREENSHOTS")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium: apt-get install chromium")

PROFILES = {
    "phone-320": {
        "viewport": {"width": 320, "height": 640},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "phone-dark": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
    },
    "desktop": {"viewport": {"width": 1200, "height": 860}},
    "no-script": {"viewport": {"width": 390, "height": 844}, "java_script_enabled": False},
}

_CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || !element.checkVisibility() || element.closest("select, svg")) continue;
    const pair = [luminance(numbers(getComputedStyle(element).color)), luminance(background(element))].sort();
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} "${element.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return found;
}"""

_TOO_SMALL = """() => [...document.querySelectorAll("a, button, select, label.check")]
  .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 44)
  .map((element) => element.outerHTML.slice(0, 60))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The front end under its real server: its folder and address."""
    folder = tmp_path_factory.mktemp("front-end")
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "front_end_site.py"), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield folder, process.stdout.readline().decode().strip()
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A small landscape with a boat, drawn, so that pictures in the docs are free."""
    image = Image.new("RGB", (1200, 900), "#bfe3f2")
    draw = ImageDraw.Draw(image)
    draw.ellipse((900, 90, 1060, 250), fill="#f9d976")
    draw.polygon([(0, 520), (330, 250), (620, 520)], fill="#7d9a8c")
    draw.polygon([(380, 520), (760, 310), (1200, 520)], fill="#6b877b")
    draw.rectangle((0, 520, 1200, 900), fill="#2e7f9e")
    for row in range(560, 900, 55):
        draw.line((0, row, 1200, row + 12), fill="#3d93b4", width=6)
    draw.polygon([(420, 640), (860, 640), (800, 730), (480, 730)], fill="#8a3b2f")
    draw.polygon([(640, 330), (640, 620), (830, 620)], fill="#fbf7ee")
    draw.polygon([(620, 370), (620, 620), (480, 620)], fill="#efe6d4")
    draw.line((630, 320, 630, 640), fill="#4d3b2a", width=10)
    path = tmp_path_factory.mktemp("photo") / "boat.jpg"
    image.save(path, quality=90)
    return path


@pytest.fixture(params=PROFILES)
def page(request, browser, site):
    """A page that notes every error, foreign request and overflow; looked at after each step by `look`."""
    context = browser.new_context(base_url=site[1], **PROFILES[request.param])
    opened = context.new_page()
    opened.profile = request.param
    opened.trouble = []
    opened.on("pageerror", lambda error: opened.trouble.append(f"script: {error}"))
    opened.on("request", lambda asked: _note_foreign(opened, asked.url, site[1]))
    opened.on(
        "console",
        lambda line: (
            opened.trouble.append(line.text) if line.type == "error" and "status of 4" not in line.text else None
        ),
    )
    yield opened
    context.close()


def _note_error(page, line) -> None:
    # Chromium reports each answer of 4xx, which some pages are about.
    if line.type == "error" and "status of 4" not in line.text:
        page.trouble.append(line.text)


def _note_foreign(page, url: str, address: str) -> None:
    if not url.startswith((address, "data:", "blob:")):
        page.trouble.append(f"foreign request: {url}")


def look(page, name: str) -> None:
    """Check what holds for every page, and keep its picture when asked to."""
    page.wait_for_load_state("networkidle")
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        size = page.viewport_size
        height = max(size["height"], page.locator("body").bounding_box()["height"])
        # A picture of the "full page" would lose the touch screen while it is taken.
        page.set_viewport_size({"width": size["width"], "height": round(height)})
        page.screenshot(path=Path(SCREENSHOTS, f"{page.profile}-{name}.png"))
        page.set_viewport_size(size)
    if page.profile != "no-script":
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, f"{name} scrolls sideways by {width} pixels"
        assert page.evaluate(_CONTRAST) == [], name
        assert page.evaluate(_TOO_SMALL) == [], name
    assert page.locator("h1").count() == 1
    assert page.trouble == [], name


def test_photo_answer_correction(page, site, photo):
    registry = Registry(DirectoryStore(site[0] / "bucket"), model="photos")
    before = len(list(registry.feedback()))
    page.goto("/")
    look(page, "1-upload")
    page.set_input_files("#gallery", photo)
    if page.profile != "no-script":
        page.wait_for_selector("#preview:not([hidden])")
    look(page, "2-chosen")
    page.click("#send")
    page.wait_for_selector(".answer")
    assert page.locator(".scores li").count() == 5
    picture = page.locator(".stage img")
    assert picture.get_attribute("src").startswith("data:image/jpeg;base64,")
    box = picture.bounding_box()
    assert abs(box["width"] / box["height"] - 4 / 3) < 0.02
    assert "version 1" in page.locator("footer").inner_text()
    look(page, "3-result")
    page.select_option("#label", "ship")
    page.check("input[name=keep_photo]")
    page.click("text=Send the correction")
    page.wait_for_selector("text=Thank you")
    assert "“ship”" in page.locator("main").inner_text()
    look(page, "4-thanks")
    page.go_back()
    page.click("text=Another photo")
    page.wait_for_selector("#send")
    while len(list(registry.feedback())) == before:
        page.wait_for_timeout(50)
    assert {feedback.corrected_label for feedback in registry.feedback()} == {"ship"}


def test_what_is_not_a_photo_is_told_kindly(page, tmp_path):
    document = tmp_path / "letter.jpg"
    document.write_text("this is no photo")
    page.goto("/")
    page.set_input_files("#gallery", document)
    page.click("#send")
    page.wait_for_selector("text=That did not work")
    look(page, "5-refused")


def test_an_address_that_does_not_exist_leads_back(page):
    page.goto("/nowhere")
    look(page, "6-not-found")
    page.click("text=Back to the start")
    page.wait_for_selector("#send")


def test_a_photo_that_is_too_large_is_told_before_and_after_sending(page, tmp_path):
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8\xff" + b"\0" * 12_000_000)
    page.goto("/")
    page.set_input_files("#gallery", large)
    if page.profile == "no-script":
        page.click("#send")
        page.wait_for_selector("text=The photo is too large")
    else:
        page.wait_for_selector("#too-large:not([hidden])")
        assert page.locator("#send").is_disabled()
    look(page, "7-too-large")


def test_it_can_be_done_with_the_keyboard_alone(browser, site, photo):
    context = browser.new_context(base_url=site[1], viewport={"width": 800, "height": 800})
    page = context.new_page()
    page.goto("/")
    focused = []
    for _ in range(4):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert [name for name in focused if name in {"gallery", "send"}] == ["gallery", "send"]
    page.set_input_files("#gallery", photo)
    page.focus("#send")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer")
    page.focus("#label")
    page.keyboard.press("s")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Thank you")
    context.close()
