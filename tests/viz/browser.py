"""A page in a real browser, without a screen and without a network."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Opened:
    """A page as a browser shows it.

    Attributes:
        dom: the document after its scripts ran.
        console: what it wrote to the console, errors of scripts and of the page's policy included.
    """

    dom: str
    console: list[str]


def open_page(chromium: str, page: Path, profile: Path, script: str = "") -> Opened:
    """Open a page, with a script of the test's own at its end."""
    if script:
        text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
        page = page.with_name(f"with-script-{page.name}")
        page.write_text(text, encoding="utf-8")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet]
    command += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}", "--window-size=1400,1800"]
    command += ["--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Opened(done.stdout, [line for line in done.stderr.splitlines() if re.search(r":CONSOLE[:(]", line)])
