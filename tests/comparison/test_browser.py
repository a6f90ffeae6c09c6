"""The page in a real browser: wide, on a phone, in the dark, printed.

Two frames of 1200 and 360 pixels stand in one page, so that a start of the browser measures both. What is looked at
does not depend on fonts: nothing sticks out, every text has contrast, pictures and drawings are there in colour.
"""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorgnette.comparison.reading import Result
from pages import Page, report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(FOUND is None, reason=f"no Chromium found; looked for {', '.join(BROWSERS)}")

WIDE, PHONE, HEIGHT = 1200, 360, 7_000
MEASURE = """
const light = c => { const v = c / 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
const luminance = c => .2126 * light(c[0]) + .7152 * light(c[1]) + .0722 * light(c[2]);
const behind = (node, view) => {
  for (; node; node = node.parentElement) {
    const c = rgb(view.getComputedStyle(node).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const look = frame => {
  const page = frame.contentDocument, view = frame.contentWindow, width = page.documentElement.clientWidth;
  const out = [], faint = [];
  page.querySelectorAll('details').forEach(part => part.open = true);
  page.querySelectorAll('body *').forEach(node => {
    const box = node.getBoundingClientRect(), scrolls = node.closest('.scroll, pre');
    if (box.right > width + 1 && !(scrolls && scrolls !== node)) out.push(node.outerHTML.slice(0, 90));
    const text = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!text || node.closest('style, metadata')) return;
    const style = view.getComputedStyle(node);
    const ink = luminance(rgb(node.namespaceURI.endsWith('svg') ? style.fill : style.color));
    const paper = luminance(behind(node, view));
    const contrast = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    if (contrast < 4.5) faint.push(contrast.toFixed(1) + ' ' + node.textContent.trim().slice(0, 40));
  });
  const pictures = [...page.images].map(image => image.complete && image.naturalWidth > 0);
  const table = page.querySelector('.scores');
  return {width, scroll: page.documentElement.scrollWidth, out, faint: [...new Set(faint)], pictures,
          paper: view.getComputedStyle(page.body).backgroundColor, height: page.body.getBoundingClientRect().height,
          table: table.scrollWidth - table.closest('.scroll').clientWidth,
          letters: parseFloat(view.getComputedStyle(table).fontSize)};
};
addEventListener('load', () => {
  const seen = Object.fromEntries([...document.querySelectorAll('iframe')].map(f => [f.width, look(f)]));
  document.body.dataset.seen = JSON.stringify(seen);
});
"""


@pytest.fixture
def page(pair: tuple[Result, Result], tmp_path: Path) -> Path:
    """A report with everything that a report has."""
    report(tmp_path / "out", [pair], gallery_size=12)
    return tmp_path / "out" / "report.html"


@pytest.fixture
def frames(page: Path) -> Path:
    """The report in two frames beside each other, and a script that measures them."""
    source = html.escape(page.read_text(encoding="utf-8"))
    both = "".join(
        f'<iframe width="{width}" height="{HEIGHT}" style="border:0;flex:none" srcdoc="{source}"></iframe>'
        for width in (WIDE, PHONE)
    )
    file = page.with_name("frames.html")
    top = '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    file.write_text(
        f'{top}<script>{MEASURE}</script><body style="margin:0;display:flex">{both}</body>', encoding="utf-8"
    )
    return file


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., str]:
    """`browser(file, *options)` -> what Chromium printed, without a network and with a profile of its own."""

    def run(file: Path, *options: str) -> str:
        alone = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        )
        words = [str(FOUND), *alone, f"--user-data-dir={tmp_path / 'profile'}", *options, file.as_uri()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=True)
        return done.stdout

    return run


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 30)")])
def test_nothing_sticks_out_and_every_text_has_contrast(
    frames: Path, browser: Callable[..., str], scheme: str, paper: str
) -> None:
    dom = browser(frames, "--dump-dom", f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}")
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found, dom[-500:]
    seen: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    for width in (WIDE, PHONE):
        frame = seen[str(width)]
        assert (frame["width"], frame["scroll"]) == (width, width)
        assert frame["out"] == []
        assert frame["faint"] == []
        assert frame["paper"] == paper
        assert frame["pictures"] == [True] * len(frame["pictures"])
        assert len(frame["pictures"]) >= 2
        assert frame["table"] <= 0  # the table of scores fits without scrolling, also on a phone
        assert frame["letters"] >= 13
    assert seen[str(PHONE)]["height"] > seen[str(WIDE)]["height"]


def test_a_screenshot_shows_pictures_and_drawings_wide_and_on_a_phone(
    frames: Path, browser: Callable[..., str], tmp_path: Path
) -> None:
    shot = tmp_path / "shot.png"
    size = f"--window-size={WIDE + PHONE},{HEIGHT}"
    browser(frames, f"--screenshot={shot}", size, "--blink-settings=preferredColorScheme=1")
    with Image.open(shot) as image:
        assert image.size == (WIDE + PHONE, HEIGHT)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    page = Page((frames.parent / "report.html").read_text(encoding="utf-8"))
    pictures = page.tags.count("img")
    for part in (pixels[:, :WIDE], pixels[:, WIDE:]):
        red = np.abs(part - (255, 0, 0)).sum(axis=2) < 12  # the picture that all documents share
        blue = np.abs(part - (0, 0x72, 0xB2)).sum(axis=2) < 12  # bars, curves, what got better
        ink = np.abs(part - (0x1D, 0x24, 0x30)).sum(axis=2) < 12
        assert red.sum() > pictures * 3_000
        assert blue.sum() > 5_000
        assert ink.sum() > 5_000
        assert (part == 255).all(axis=2).mean() > 0.5  # calm: most of the page is paper
        lines = np.flatnonzero((part[:1_000] != 255).any(axis=(1, 2)))
        assert lines[0] < 100  # the headline is at the top


def test_it_prints(page: Path, browser: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "page.pdf"
    browser(page, f"--print-to-pdf={file}", "--no-pdf-header-footer", "--blink-settings=preferredColorScheme=0")
    content = file.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 8
