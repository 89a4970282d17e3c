"""The page in a real browser, where there is one: what a reader of a laptop or of paper meets."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MEASURE = """<script>
document.querySelectorAll("details").forEach(d => { d.open = true; });
const over = [...document.querySelectorAll(".scroll, .plot")]
  .filter(e => e.scrollWidth > e.clientWidth + 1).length;
document.title = `measured ${document.documentElement.scrollWidth} ${over}`;
</script>"""


def browse(tmp_path: Path, *options: str, page: str) -> str:
    assert CHROMIUM is not None
    file = tmp_path / "page.html"
    file.write_text(page)
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", *options, file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_nothing_is_wider_than_a_laptop(full_page: str, tmp_path: Path) -> None:
    measuring = full_page.replace("</body>", f"{MEASURE}</body>")
    seen = browse(tmp_path, "--window-size=1280,900", "--dump-dom", page=measuring)
    title = re.search(r"<title>measured (\d+) (\d+)</title>", seen)
    assert title is not None
    assert int(title[1]) <= 1280
    assert int(title[2]) == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_paper_shows_what_the_screen_folds(bare_page: str, tmp_path: Path) -> None:
    assert "<details>" in bare_page
    pages = []
    for name, page in (
        ("folded", bare_page), ("open", bare_page.replace("<details>", "<details open>"))
    ):  # fmt: skip
        pdf = tmp_path / f"{name}.pdf"
        browse(tmp_path, f"--print-to-pdf={pdf}", page=page)
        pages.append(len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())))
    assert pages[0] == pages[1] > 2
