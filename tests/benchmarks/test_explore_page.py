"""The living map in a headless browser: how long a drag takes, with all that follows, and how soon the page answers."""

import time
from pathlib import Path

import pytest
import torch

from pullgeo import PullbackManifold, datasets, viz, zoo

playwright = pytest.importorskip("playwright.sync_api")

DRAG = """
async (steps) => {
  const { x, y } = explorer.surface;
  const [x0, y0] = explorer.state.z1;
  const frame = () => new Promise(requestAnimationFrame);
  const updates = [], frames = [];
  for (let i = 0; i < steps; i++) {
    const s = i / steps;
    const z = [x0 + 0.25 * (x[1] - x[0]) * Math.sin(7 * s), y0 + 0.25 * (y[1] - y[0]) * Math.sin(5 * s)];
    const begun = performance.now();
    explorer.moved("b", explorer.map.within(z), false);
    await frame();
    await frame();
    frames.push(performance.now() - begun);
    updates.push(explorer.lastUpdate);
  }
  const at = (values, q) => values.sort((a, b) => a - b)[Math.floor(q * values.length)];
  return [at(updates, 0.5), at(updates, 0.95), at(frames, 0.5), at(frames, 0.95)];
}
"""


@pytest.mark.parametrize("count", [500, 2000, 20_000])
def test_a_drag(count: int, chromium: str, tmp_path: Path) -> None:
    data, vae = datasets.digits(), zoo.digits_vae()
    z = vae.encode(data.images).detach()
    rows = torch.arange(count) % len(z)
    z = z[rows] + 0.05 * torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    begun = time.perf_counter()
    path = viz.explore(
        PullbackManifold(vae.decoder), z, data.labels[rows], image_shape=(8, 8), path=tmp_path / "m.html"
    )
    written = time.perf_counter() - begun
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        begun = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector(".pg[data-ready=true]", timeout=60_000)
        ready = time.perf_counter() - begun
        update, slow, frame, long = page.evaluate(DRAG, 200)
        browser.close()
    print(
        f"\n{count} latents: written in {written:.1f} s, {path.stat().st_size / 1e6:.1f} MB, ready in {ready:.1f} s; "
        f"an update {update:.1f} ms (95 %: {slow:.1f}), two frames {frame:.0f} ms (95 %: {long:.0f})"
    )
