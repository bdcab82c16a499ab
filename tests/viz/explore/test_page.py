"""The living map in a real browser: what a person does on it."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pullgeo import MetricManifold, PullbackManifold, datasets, viz, zoo
from pullgeo.errors import OptionError, ShapeError
from pullgeo.manifold import Ensemble
from pullgeo.stats import member_distances
from pullgeo.testing.charts import HalfPlane
from pullgeo.viz.explore.bundle import bundle, front, modules
from tests.viz.explore.decoders import mlp
from tests.viz.reading import payload_in, payloads_in

playwright = pytest.importorskip("playwright.sync_api")

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic"]
HOSTILE = ["<script>alert(1)</script>", '<img src=x onerror="alert(1)">', "javascript:alert(1)", "x" * 10_000]


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Coarser maps, checked on fewer pairs: what is tried is the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["pullgeo.viz.explore.payload"], "SIDE", 40)
        patch.setattr(sys.modules["pullgeo.viz.explore.payload"], "PAIRS", 6)
        yield


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, quick: None) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("maps")
    data, vae = datasets.digits(), zoo.digits_vae()
    z = vae.encode(data.images[:400]).detach()
    manifold = PullbackManifold(vae.decoder)
    digits = viz.explore(
        manifold, z, data.labels[:400], solution=manifold.geodesic(z[:2], z[2:4]), pictures=data.images[:400],
        image_shape=data.image_shape, path=folder / "digits.html", title="Digits",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    deep = nn.Sequential(
        nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3 * 6 * 5), nn.Sigmoid(), nn.Unflatten(1, (3, 6, 5))
    )
    points = torch.randn(60, 10, generator=generator)
    space = PullbackManifold(deep)
    sliced = viz.explore(space, points, solution=space.geodesic(points[:1], points[1:2]), path=folder / "deep.html")
    plain = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4))
    few = torch.randn(60, 2, generator=generator)
    labels = np.array(HOSTILE)[np.arange(60) % 4]
    hostile = viz.explore(
        PullbackManifold(plain), few, labels, features=HOSTILE, latent_names=HOSTILE * 15, title=HOSTILE[0],
        path=folder / "hostile.html",
    )  # fmt: skip
    half = MetricManifold(HalfPlane().metric)
    given = viz.explore(half, torch.rand(40, 2, generator=generator) + 0.5, path=folder / "metric.html")
    pictures, large = datasets.mnist5000(), zoo.mnist_vae(10)
    means = large.encode(pictures.images[::50]).detach()
    mnist = viz.explore(
        PullbackManifold(large.decoder), means, pictures.labels[::50], plane={"Components": None, "z2 & z7": (2, 7)},
        path=folder / "mnist.html", title="MNIST in ten dimensions",
    )  # fmt: skip
    several = viz.explore(
        PullbackManifold(Ensemble([mlp(seed=k) for k in range(3)])), few, path=folder / "ensemble.html"
    )
    return {
        "digits": digits, "deep": sliced, "hostile": hostile, "metric": given, "mnist": mnist, "ensemble": several,
    }  # fmt: skip


@dataclass
class Seen:
    """A page and what it said."""

    page: Any
    wrong: list[str] = field(default_factory=list)

    def state(self, name: str) -> Any:
        return self.page.evaluate(f"explorer.state.{name}")

    def numbers(self) -> list[str]:
        return self.page.locator(".pg-numbers output").all_inner_texts()

    def pixels(self, selector: str) -> str:
        return self.page.evaluate(f"document.querySelector('{selector}').toDataURL()")

    def centre(self, selector: str) -> tuple[float, float]:
        box = self.page.locator(selector).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, selector: str, by: tuple[float, float], steps: int = 8) -> None:
        x, y = self.centre(selector)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + by[0], y + by[1], steps=steps)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    contexts = []

    def open_page(name: str, hash_: str = "", **options: Any) -> Seen:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True, **options)
        contexts.append((context, name))
        page = context.new_page()
        seen = Seen(page)
        page.on("console", lambda m: seen.wrong.append(f"{m.type}: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: seen.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (seen.wrong.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda r: None if re.match("file:|data:|blob:", r.url) else seen.wrong.append(r.url))
        page.goto(pages[name].as_uri() + hash_)
        page.wait_for_selector(".pg[data-ready=true]", timeout=30_000)
        context.seen = seen
        return seen

    yield open_page
    for context, _ in contexts:
        assert context.seen.wrong == []
        context.close()


def test_dragging_an_end_moves_curve_numbers_and_strip(visit: Any):
    seen = visit("digits")
    curve = seen.page.get_attribute("path.pg-geodesic", "d")
    numbers, strip = seen.numbers(), seen.pixels(".pg-strip-geodesic canvas:nth-child(9)")
    end = seen.state("z1")
    seen.drag(".pg-knob-b .pg-dot", (-120, -150))
    assert seen.state("z1") != end
    assert seen.page.get_attribute("path.pg-geodesic", "d") != curve
    assert seen.pixels(".pg-strip-geodesic canvas:nth-child(9)") != strip
    after = seen.numbers()
    assert after != numbers
    length, line = (float(re.match(r"[\d.]+", text).group()) for text in after[:2])
    assert length <= line * 1.001
    assert seen.page.get_attribute(".pg-status", "data-status") == "CONVERGED"


@pytest.mark.full
def test_the_length_is_that_of_the_library(visit: Any):
    seen = visit("digits")
    z0, z1 = (torch.tensor([seen.state(name)], dtype=torch.float64) for name in ("z0", "z1"))
    exact = float(PullbackManifold(zoo.digits_vae().decoder).dist(z0, z1).detach())
    shown = float(re.match(r"[\d.]+", seen.numbers()[0]).group())
    assert shown == pytest.approx(exact, rel=5e-3)


@pytest.mark.full
def test_slider_space_bar_and_both_pictures(visit: Any):
    seen = visit("digits")
    before = [seen.pixels(f"[data-now={name}]") for name in ("geodesic", "line")]
    mark = seen.page.get_attribute(".pg-on-geodesic", "transform")
    seen.page.locator(".pg-player input").fill("0.05")
    assert seen.state("t") == pytest.approx(0.05, abs=0.002)
    assert [seen.pixels(f"[data-now={name}]") for name in ("geodesic", "line")] != before
    assert seen.page.get_attribute(".pg-on-geodesic", "transform") != mark
    seen.page.locator("h1").click()
    seen.page.keyboard.press("Space")
    seen.page.wait_for_function("explorer.state.t > 0.08", timeout=10_000)
    seen.page.keyboard.press("Space")
    assert not seen.page.evaluate("explorer.playing")


@pytest.mark.full
def test_every_layer_and_unit_balls(visit: Any):
    seen = visit("digits")
    names = seen.page.eval_on_selector_all(".pg-bar option", "nodes => nodes.map(n => n.value)")
    assert {"volume", "condition", "curvature", "distance", "none"} < set(names)
    legends = set()
    for name in names:
        seen.page.select_option(".pg-bar select", name)
        legends.add(seen.page.inner_text(".pg-legend"))
        shown = seen.page.evaluate("explorer.map.plot.data[0].visible")
        assert shown == (name != "none")
        if shown:
            finite = seen.page.evaluate(
                "explorer.map.plot.data[0].z.flatMap(r => [...r]).filter(Number.isFinite).length"
            )
            assert finite > 500
    assert len(legends) == len(names)
    assert seen.page.get_attribute("path.pg-balls", "d") in (None, "")
    seen.page.locator(".pg-bar input[type=checkbox]").check()
    assert seen.page.get_attribute("path.pg-balls", "d").count("M") > 20


@pytest.mark.full
def test_members_of_an_ensemble(visit: Any):
    seen = visit("ensemble", "#layer=members")
    assert "Disagreement of members" in seen.page.inner_text(".pg-legend")
    seen.page.wait_for_function("explorer.spread", timeout=10_000)
    z0, z1 = (torch.tensor([seen.state(name)], dtype=torch.float64) for name in ("z0", "z1"))
    exact = member_distances([mlp(seed=k) for k in range(3)], z0, z1)
    assert seen.page.evaluate("explorer.spread.mean") == pytest.approx(float(exact.mean), rel=5e-3)
    shown = seen.page.inner_text(".pg-spread")
    assert shown.startswith("3 of 3 members mean")
    assert exact.verdict[0].value[12:] in shown
    assert seen.page.get_attribute(".pg-spread", "data-verdict") == exact.verdict[0].name
    # while a pointer moves nothing is known, and where it rests an exact answer takes the place of the page's
    seen.page.evaluate(
        "() => { explorer.host.members = async ({ a, b }) => ({ lengths: [1, 2, null], mean: 1.5, std: 0.7, cv: 0.47,"
        " status: 'DISAGREE', text: 'no <b>', converged: false }); }"
    )
    seen.drag(".pg-knob-b .pg-dot", (-30, -40))
    assert not seen.page.locator(".pg-spread").is_visible()
    seen.page.wait_for_selector(".pg-spread[data-exact=true]")
    assert seen.page.inner_text(".pg-spread") == "2 of 3 members Exact: mean 1.5, std 0.7, std / mean 47.0 %. No <b>."
    seen.page.click("[data-tool=shoot]")
    assert not seen.page.locator(".pg-spread").is_visible()


@pytest.mark.full
def test_lasso_mean(visit: Any):
    seen = visit("digits")
    seen.page.click("[data-tool=lasso]")
    box = seen.page.locator(".pg-overlay").bounding_box()
    corners = [(0.35, 0.25), (0.65, 0.25), (0.65, 0.55), (0.35, 0.55), (0.35, 0.26)]
    seen.page.mouse.move(box["x"] + corners[0][0] * box["width"], box["y"] + corners[0][1] * box["height"])
    seen.page.mouse.down()
    for x, y in corners[1:]:
        seen.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    seen.page.mouse.up()
    rows = seen.state("selection")
    assert len(rows) > 5
    assert f"{len(rows)} latents" in seen.page.inner_text(".pg-mean-panel")
    assert seen.page.locator(".pg-mean-panel canvas").count() == 2
    point = seen.page.evaluate("explorer.mean.point")
    z = zoo.digits_vae().encode(datasets.digits().images[:400]).detach().numpy()[rows]
    assert (z.min(0) <= point).all()
    assert (point <= z.max(0)).all()


@pytest.mark.full
def test_arrow_keys_and_focus(visit: Any):
    seen = visit("digits")
    seen.page.focus(".pg-knob-a")
    x, y = seen.state("z0")
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("Shift+ArrowUp")
    after = seen.state("z0")
    assert after[0] > x
    assert after[1] > y
    assert seen.page.evaluate("document.activeElement.classList.contains('pg-knob-a')")


@pytest.mark.full
def test_touch(visit: Any):
    seen = visit("digits", has_touch=True)
    x, y = seen.centre(".pg-knob-a .pg-dot")
    before = seen.state("z0")
    session = seen.page.context.new_cdp_session(seen.page)
    touch = {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
    session.send("Input.dispatchTouchEvent", touch)
    for step in range(1, 6):
        moved = {"type": "touchMove", "touchPoints": [{"x": x + 12 * step, "y": y - 9 * step}]}
        session.send("Input.dispatchTouchEvent", moved)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    seen.page.wait_for_function(f"explorer.state.z0[0] !== {before[0]}", timeout=5_000)
    assert seen.state("z0")[0] > before[0]


@pytest.mark.full
def test_pairs_are_kept_renamed_exported_and_come_back_with_the_address(visit: Any):
    seen = visit("digits")
    given = seen.page.locator(".pg-pin-list li").count()
    assert given == 2  # solved when the page was written
    seen.page.click("[data-act=pin]")
    seen.page.locator(".pg-pin-list li input").last.fill('<b>bold</b> & "named"')
    seen.page.locator(".pg-pin-list li input").last.dispatch_event("change")
    assert seen.state("pins")[0]["name"] == '<b>bold</b> & "named"'
    with seen.page.expect_download() as waiting:
        seen.page.click("[data-act=json]")
    kept = json.loads(Path(waiting.value.path()).read_text(encoding="utf-8"))
    assert kept["pairs"][0]["status"] == "CONVERGED"
    with seen.page.expect_download() as waiting:
        seen.page.click("[data-act=csv]")
    rows = Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()
    assert rows[0] == "t,x,y,speed"
    assert [float(v) for v in rows[1].split(",")[1:3]] == pytest.approx(seen.state("z0"))
    with seen.page.expect_download() as waiting:
        seen.page.click("[data-act=svg]")
    assert "<svg" in Path(waiting.value.path()).read_text(encoding="utf-8")[:500]
    seen.drag(".pg-knob-b .pg-dot", (60, -80))
    moved = "location.hash.includes('pin=') && location.hash.includes(Number(explorer.state.z1[0].toPrecision(7)))"
    seen.page.wait_for_function(moved, timeout=5_000)
    hash_, ends = seen.page.evaluate("location.hash"), (seen.state("z0"), seen.state("z1"))
    again = visit("digits", hash_)
    assert [again.state("z0"), again.state("z1")] == [pytest.approx(end, rel=1e-5) for end in ends]
    assert again.state("pins")[0]["name"] == '<b>bold</b> & "named"'
    again.page.locator(".pg-pin-list li button[aria-label]").click()
    assert again.state("pins") == []


@pytest.mark.full
def test_an_address_cannot_break_the_page(visit: Any):
    seen = visit("digits", "#z0=NaN,1&z1=1e99,2&t=7&layer=%3Cb%3E&tool=x&pin=1,2,3&hidden=-1,a&z1=&&&=")
    assert np.isfinite(seen.state("z0")).all()
    assert seen.state("layer") == "volume"
    assert seen.state("t") == 1


@pytest.mark.full
def test_shooting_and_reaching(visit: Any):
    seen = visit("digits")
    seen.page.click("[data-tool=shoot]")
    curve = seen.page.get_attribute("path.pg-geodesic", "d")
    seen.drag(".pg-knob-v .pg-dot", (40, -60))
    assert seen.page.get_attribute("path.pg-geodesic", "d") != curve
    begin = seen.page.evaluate("[...explorer.curve.nodes.slice(0, 2)]")
    assert begin == pytest.approx(seen.state("z0"))
    seen.page.click("[data-tool=reach]")
    assert seen.page.get_attribute("path.pg-fan", "d").count("M") > 20


@pytest.mark.full
def test_latents_are_found_and_shown(visit: Any):
    seen = visit("digits")
    seen.page.fill(".pg-panel input[type=search]", "17")
    seen.page.keyboard.press("Enter")
    assert "Latent 17" in seen.page.inner_text(".pg-latent")
    assert seen.page.locator(".pg-latent canvas").count() == 2  # given and decoded
    seen.page.get_by_role("button", name="Start here").click()
    z = zoo.digits_vae().encode(datasets.digits().images[17:18]).detach()[0].tolist()
    assert seen.state("z0") == pytest.approx(z, rel=1e-5)
    boxes = seen.page.locator(".pg-classes input")
    boxes.first.uncheck()
    assert seen.state("hidden") == [0]
    assert seen.page.evaluate("explorer.map.plot.data[1].visible") is False


@pytest.mark.full
def test_three_dimensions(visit: Any):
    seen = visit("digits")
    seen.page.get_by_role("button", name="3-D").click()
    seen.page.wait_for_function("explorer.solid?.element.data?.[2]?.x?.length > 10", timeout=20_000)
    before = seen.page.evaluate("explorer.solid.element.data[2].x.slice()")
    seen.drag(".pg-knob-b .pg-dot", (30, -40))
    assert seen.page.evaluate("explorer.solid.element.data[2].x") != before
    seen.page.get_by_role("button", name="3-D").click()
    assert seen.page.evaluate("explorer.solid") is None


@pytest.mark.full
def test_a_slice_says_so_and_shows_exact_geodesics(visit: Any, pages: dict[str, Path]):
    seen = visit("deep")
    assert "geodesics of the slice" in seen.page.inner_text(".pg-notes")
    assert seen.page.locator("path.pg-pin").count() == 1
    assert payload_in(pages["deep"])["decode"]["shape"] == [6, 5, 3]
    colours = seen.page.evaluate(
        "(() => { const c = document.querySelector('[data-now=geodesic]');"
        "return [...c.getContext('2d').getImageData(0, 0, 5, 6).data]; })()"
    )
    pixels = np.array(colours).reshape(30, 4)
    assert (pixels[:, 3] == 255).all()
    assert np.ptp(pixels[:, :3], axis=1).max() > 3  # not grey
    x, y = seen.page.evaluate("[...explorer.curve.nodes.slice(0, 2)]")
    # the picture at the beginning of the curve is what the decoder makes of that place
    plane = payload_in(pages["deep"])["plane"]
    z = torch.tensor(plane["origin"]) + x * torch.tensor(plane["axes"][0]) + y * torch.tensor(plane["axes"][1])
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 90), nn.Sigmoid())
    decoded = np.array(seen.page.evaluate(f"[...explorer.decode({x}, {y})]"))
    np.testing.assert_allclose(decoded, deep(z[None].float())[0].detach().numpy(), atol=5e-3)


@pytest.mark.full
def test_ten_dimensions_of_mnist_and_the_choice_of_a_plane(visit: Any, pages: dict[str, Path]):
    seen = visit("mnist")
    first, second = payloads_in(pages["mnist"])
    seen.page.keyboard.press("Tab")
    curve, strip = (
        seen.page.get_attribute("path.pg-geodesic", "d"),
        seen.pixels(".pg-strip-geodesic canvas:nth-child(9)"),
    )
    seen.drag(".pg-knob-b .pg-dot", (-60, -80))
    assert seen.page.get_attribute("path.pg-geodesic", "d") != curve
    assert seen.pixels(".pg-strip-geodesic canvas:nth-child(9)") != strip
    assert seen.state("z0") == pytest.approx(first["start"]["z0"])
    seen.page.get_by_label("Plane").select_option("z2 & z7")
    seen.page.wait_for_selector(".pg[data-ready=true]")
    assert "Dimensions 2 and 7 vary" in seen.page.inner_text(".pg-notes")
    assert seen.state("z0") == pytest.approx(second["start"]["z0"])
    seen.drag(".pg-knob-a .pg-dot", (40, 30))
    seen.page.wait_for_function(
        "location.hash.startsWith('#plane=z2') && "
        "location.hash.includes(`z0=${Number(explorer.state.z0[0].toPrecision(7))},`)"
    )
    end, address = seen.state("z0"), seen.page.evaluate("location.hash")
    again = visit("mnist", address)
    assert again.page.get_by_label("Plane").evaluate("node => node.selectedOptions[0].text") == "z2 & z7"
    assert again.state("z0") == pytest.approx(end, rel=1e-5)


@pytest.mark.full
def test_names_are_text_never_markup(visit: Any):
    seen = visit("hostile")
    assert seen.page.title() == HOSTILE[0]
    assert seen.page.locator("h1").inner_text() == HOSTILE[0]
    assert seen.page.locator("#explorer script, #explorer img").count() == 0
    for query in HOSTILE[:3]:
        seen.page.fill(".pg-panel input[type=search]", query)
        seen.page.keyboard.press("Enter")
        assert query in seen.page.inner_text(".pg-latent h3")
    assert (
        "alert(1)" in seen.page.inner_text(".pg-nows small >> nth=0") or seen.page.locator("canvas.pg-bars").count() > 5
    )
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.full
def test_a_manifold_that_decodes_nothing(visit: Any):
    seen = visit("metric")
    assert seen.page.locator("canvas.pg-frame").count() == 0
    seen.drag(".pg-knob-b .pg-dot", (-30, -40))
    assert seen.page.get_attribute(".pg-status", "data-status") == "CONVERGED"
    a, b = (np.array(seen.state(name)) for name in ("z0", "z1"))
    exact = np.arccosh(1 + ((a - b) ** 2).sum() / (2 * a[1] * b[1]))
    assert float(re.match(r"[\d.]+", seen.numbers()[0]).group()) == pytest.approx(exact, rel=5e-3)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (360, 740)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(visit: Any, width: int, height: int, scheme: str):
    seen = visit("digits", color_scheme=scheme)
    seen.page.set_viewport_size({"width": width, "height": height})
    seen.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=5_000)
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = seen.page.evaluate("document.querySelector('.pg').classList.contains('pg-dark')")
    assert dark == (scheme == "dark")
    if width > 1000:
        box = seen.page.locator(".pg-map").bounding_box()
        panel = seen.page.locator(".pg-panel").bounding_box()
        assert box["y"] + box["height"] < height
        assert panel["y"] + panel["height"] <= height


def test_modules_are_joined_into_one_script():
    script = bundle("hosts/page.js")
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    names = [name for path in modules("hosts/page.js") for name in top_level(front(path))]
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})


def top_level(text: str) -> list[str]:
    return re.findall(r"^(?:export )?(?:async )?(?:function|class|const|let)\s+(\w+)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"plane": "rows"}, OptionError, "plane must be 'components'"),
        ({"plane": {}}, OptionError, "an empty dictionary"),
        ({"plane": (0, 0)}, OptionError, "two different whole numbers"),
        ({"features": ["a"]}, ShapeError, "name each of the 4 outputs"),
        ({"latent_names": ["a"]}, ShapeError, "one entry for each of the 9 latents"),
        ({"pictures": torch.zeros(3, 4)}, ShapeError, "one entry for each of the 9 latents"),
        ({"render": lambda y: y[:, :2]}, ShapeError, "render must return pictures"),
        ({"image_shape": (3, 3)}, ShapeError, "image_shape"),
    ],
)
def test_misuse(options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, quick: None):
    manifold = PullbackManifold(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)))
    with pytest.raises(error, match=message):
        viz.explore(manifold, torch.randn(9, 2), path=tmp_path / "map.html", **options)
    assert not list(tmp_path.iterdir())


def test_rendered_pictures(tmp_path: Path, quick: None):
    manifold = PullbackManifold(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)))

    def render(outputs: torch.Tensor) -> np.ndarray:
        return np.tile(outputs.sigmoid().numpy(force=True)[:, None, None, :], (1, 4, 5, 1))

    path = viz.explore(manifold, torch.randn(30, 2), render=render, path=tmp_path / "map.html")
    shown = payload_in(path)["decode"]
    assert (shown["kind"], shown["shape"], shown["D"], shown["range"]) == ("image", [4, 5, 3], 60, [0.0, 1.0])
