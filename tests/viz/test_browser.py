"""The page as a browser shows it."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from pullgeo.viz import latent_report, page
from tests.viz.browser import open_page
from tests.viz.conftest import Scene
from tests.viz.reading import figures_in

# Meets a latent, a geodesic and a place without either with the pointer, and writes what the panel then shows to the
# document. At the end it asks for a picture from elsewhere, which the page's policy must forbid.
HOVER = """
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
window.addEventListener("load", async () => {
  await pause(1500);
  const [map] = document.querySelectorAll(".plot");
  const panel = document.querySelector(".peek");
  const canvas = panel.querySelector("canvas");
  const seen = {};
  const meet = async (key, x, y) => {
    const { xaxis, yaxis } = map._fullLayout;
    const target = map.querySelector(".nsewdrag");
    const box = target.getBoundingClientRect();
    const place = { clientX: box.left + xaxis.d2p(x), clientY: box.top + yaxis.d2p(y) };
    target.dispatchEvent(new MouseEvent("mousemove", { ...place, bubbles: true, view: window }));
    await pause(300);
    const copy = document.createElement("canvas").getContext("2d");
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    seen[key] = {
      pixels: Array.from(data).filter((_, k) => k % 4 === 0),
      words: panel.querySelector("output").innerText,
    };
  };
  const named = (name) => map._fullData.find((trace) => trace.name === name);
  const nth = (name, n) => [named(name).x[n], named(name).y[n]];
  await meet("latent", ...nth("b", 2));
  await meet("curve", ...nth("geodesic", 60));
  const { x, y } = named("log √det G");
  await meet("place", x[Math.floor(0.83 * x.length)], y[Math.floor(0.12 * y.length)]);
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
  new Image().src = "https://localhost:1/elsewhere.png";
});
"""


@pytest.fixture(scope="module")
def report(flat_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    s = flat_scene
    names = ["<b>p</b>", "q & r", "s"]
    sections = latent_report(s.manifold, s.z, s.labels, s.solution, names=names, image_shape=(3, 5))
    return page(sections, tmp_path_factory.mktemp("browser") / "page.html", title="Opened")


def test_the_page_is_drawn_shows_pictures_and_fetches_nothing(
    chromium: str, report: Path, flat_scene: Scene, tmp_path: Path
):
    opened = open_page(chromium, report, tmp_path, HOVER)
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

    seen = json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', opened.dom, re.DOTALL).group(1)))

    def decoded(z: torch.Tensor) -> list[int]:
        return (flat_scene.manifold.decoder(z) * 255).round().int().tolist()

    row = int(np.flatnonzero(flat_scene.labels == "b")[2])
    assert seen["latent"]["pixels"] == decoded(flat_scene.z[row])
    assert f"latent {row}, class b" in seen["latent"]["words"]
    on_curve = flat_scene.solution.curve(torch.linspace(0, 1, 101).double())[0, 60]
    assert seen["curve"]["pixels"] == decoded(on_curve)
    assert "1: <b>p</b>: length" in seen["curve"]["words"]
    # the picture of the cell that holds the place, which is the centre of a cell of the finer background
    grid = figures_in(report)[0]["data"][0]["meta"]["grid"]
    spans = [high - low for low, high in grid["extent"]]
    centre = []
    for (low, _), span, share, cells in zip(
        grid["extent"], spans, (0.83, 0.12), (grid["columns"], grid["rows"]), strict=True
    ):
        fine = round(100 * span / max(spans))
        place = (int(share * fine) + 0.5) / fine
        centre.append(low + span * (int(place * cells) + 0.5) / cells)
    assert seen["place"]["pixels"] == decoded(torch.tensor(centre, dtype=torch.float64))
    assert "log √det G" in seen["place"]["words"]
