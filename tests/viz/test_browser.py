"""The page as a browser shows it."""

import re
from pathlib import Path

import pytest

from pullgeo.viz import latent_report, page
from tests.viz.browser import open_page
from tests.viz.conftest import Scene

# Asks for a picture from elsewhere, which the page's policy must forbid.
ELSEWHERE = """
window.addEventListener("load", () => { new Image().src = "https://localhost:1/elsewhere.png"; });
"""


@pytest.fixture(scope="module")
def report(flat_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    s = flat_scene
    names = ["<b>p</b>", "q & r", "s"]
    sections = latent_report(s.manifold, s.z, s.labels, s.solution, names=names, image_shape=(3, 5))
    return page(sections, tmp_path_factory.mktemp("browser") / "page.html", title="Opened")


def test_the_page_is_drawn_and_fetches_nothing(chromium: str, report: Path, flat_scene: Scene, tmp_path: Path):
    opened = open_page(chromium, report, tmp_path, ELSEWHERE)
    # one message: the request of the test itself. Nothing else was asked for, and no script failed.
    (refused,) = opened.console
    assert "https://localhost:1/elsewhere.png" in refused
    assert "Content Security Policy" in refused
    assert opened.dom.count('data-drawn="true"') == 2

    assert len(re.findall(r"<image[^>]+data:image/png", opened.dom)) >= 1 + 3 * 2 * 9  # the heatmap, the strips
    points = re.findall(r'<path class="point[ "]', opened.dom)
    assert len(points) >= len(flat_scene.z)
    assert len(re.findall(r'<path class="js-line"', opened.dom)) >= 4  # two kinds of curve with their casings
    for words in ("straight line", "geodesic", "log √det G", "z[0]", "q &amp; r"):
        assert words in opened.dom
