"""The living map in a notebook: traits both ways, and the script in a browser without a kernel."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pullgeo import PullbackManifold, viz
from pullgeo.errors import DataError, NonFiniteError, OptionError, ShapeError
from pullgeo.manifold import Ensemble
from pullgeo.viz.explore import absent

pytest.importorskip("anywidget")

Z = torch.randn(13, 3, generator=torch.Generator().manual_seed(3))

SAMPLED: dict[tuple[int, str], dict] = {}


def decode(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z, z.sin(), z.prod(1, keepdim=True)], dim=1)


@pytest.fixture(autouse=True)
def payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The surface of each decoder is sampled once: it is the same every time."""
    widget = importlib.import_module("pullgeo.viz.explore.widget")
    real = widget.payload_of

    def kept(manifold, z, *more, **options):
        key = (z.shape[1], options["plane"].name)
        if key not in SAMPLED:
            SAMPLED[key] = real(manifold, z, *more, **options)
        return SAMPLED[key]

    monkeypatch.setattr(widget, "payload_of", kept)


def explorer(d: int = 2) -> "viz.Explorer":
    return viz.Explorer(PullbackManifold(decode), Z[:, :d], ["a", "<script>", "c"] * 4 + ["a"], plane=(0, 1))


def from_map(widget: "viz.Explorer", **state: object) -> None:
    """What the browser's side sets, as its comm brings it."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []})


def ask(widget: "viz.Explorer", content: object) -> list[dict]:
    """Send a custom message as the browser does, and return what is sent back."""
    sent: list[dict] = []
    widget.send = lambda content, buffers=None: sent.append(content)
    widget._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    return sent


@pytest.mark.parametrize("d", [2, 3])
def test_ends_that_are_set_are_those_of_the_map(d: int):
    widget = explorer(d)
    widget.z0 = Z[4, :d]
    widget.z1 = Z[5, :d].tolist()
    assert widget.get_state()["_a"] == pytest.approx(Z[4, :2].tolist())
    assert widget.get_state()["_b"] == pytest.approx(Z[5, :2].tolist())
    assert widget.z0[:2] == pytest.approx(Z[4, :2].tolist())
    if d == 3:  # on the plane, through the mean of the latents
        assert widget.z0[2] == pytest.approx(float(Z[:, 2].mean()))


@pytest.mark.parametrize("d", [2, 3])
def test_ends_that_are_dragged_are_seen_in_python(d: int):
    widget, seen = explorer(d), []
    widget.observe(lambda change: seen.append(change["new"]), names="z0")
    from_map(widget, _a=[0.25, -0.5])
    assert widget.z0[:2] == (0.25, -0.5)
    assert len(widget.z0) == d
    assert seen == [widget.z0]
    # and are not sent back as others
    assert widget.get_state()["_a"] == [0.25, -0.5]


def test_the_curve_is_read_only_and_exact_where_it_was_solved():
    widget = explorer(3)
    from_map(widget, _curve={"nodes": [[0, 0], [1, 2], [1, 3]], "full": None, "status": "CONVERGED"})
    assert widget.curve.shape == (3, 3)
    np.testing.assert_allclose(widget.curve[:, :2], [[0, 0], [1, 2], [1, 3]], atol=1e-6)
    from_map(widget, _curve={"nodes": [[0, 0], [1, 3]], "full": [[0, 0, 5], [1, 3, 6]], "status": "MAX_STEPS"})
    assert widget.curve.tolist() == [[0, 0, 5], [1, 3, 6]]
    assert widget.status == "MAX_STEPS"
    for name in ("curve", "status"):
        with pytest.raises(Exception, match="read-only"):
            setattr(widget, name, widget.curve)


def test_selection_pins_and_layer_go_both_ways():
    widget = explorer()
    widget.selection = np.array([5, 2, 5])
    assert widget.selection == (5, 2)
    assert json.dumps(widget.get_state()["selection"]) == "[5, 2]"
    from_map(widget, selection=[7], layer="gauss", pins=[{"z0": [0, 1], "z1": [1, 1], "name": "one"}])
    assert widget.selection == (7,)
    assert widget.layer == "gauss"
    assert widget.pins == [{"z0": [0, 1], "z1": [1, 1], "name": "one"}]
    widget.pins = []
    widget.selection = []
    assert widget.get_state()["pins"] == widget.get_state()["selection"] == []


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("z0", [0.0], ShapeError, r"Explorer.z0 must have shape \(2,\)"),
        ("z0", [0.0, float("nan")], NonFiniteError, "NaN"),
        ("z1", "ab", OptionError, "2 numbers"),
        ("z1", torch.zeros(3), ShapeError, "shape"),
        ("_a", [0, float("inf")], NonFiniteError, "infinity"),
        ("selection", [13], OptionError, "between 0 and 12, got 13"),
        ("selection", [-1], OptionError, "got -1"),
        ("selection", [0.5], OptionError, "list of rows"),
        ("selection", "abc", OptionError, "list of rows"),
        ("selection", 3, OptionError, "list of rows"),
        ("pins", {"z0": 1}, OptionError, "list of dictionaries"),
        ("pins", [{"z0": [0, 0]}], OptionError, "needs z0 and z1"),
        ("pins", [{"z0": [0, 0], "z1": [0]}], ShapeError, "z1 of entry 0"),
        ("pins", [{"z0": [0, 0], "z1": [0, 1], "name": 3}], OptionError, "text"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(name: str, value: object, error: type, words: str):
    widget = explorer()
    widget.z0, widget.selection = [0.5, 0.5], [1]
    before = widget.get_state()
    with pytest.raises(error, match=words):
        setattr(widget, name, value)
    assert widget.get_state() == before


def test_latents_and_labels_are_checked_first():
    with pytest.raises(NonFiniteError):
        viz.Explorer(PullbackManifold(decode), torch.full((3, 2), torch.nan))
    with pytest.raises(ShapeError, match="labels"):
        viz.Explorer(PullbackManifold(decode), Z[:, :2], ["a"])
    with pytest.raises(ShapeError, match="at least 2 dimensions"):
        viz.Explorer(PullbackManifold(decode), Z[:, :1])


def test_the_kernel_answers_exactly():
    widget = explorer(3)
    (answer,) = ask(widget, {"id": "7", "question": {"kind": "geodesic", "a": [0, 0], "b": [1, 0.5]}})
    ends = widget._plane.lift(torch.tensor([[0, 0], [1, 0.5]]).double())
    assert answer["id"] == "7"
    assert answer["answer"]["length"] == pytest.approx(float(PullbackManifold(decode).dist(*ends)), rel=1e-9)
    (answer,) = ask(widget, {"id": "8", "question": {"kind": "geodesic", "a": [0, "x"], "b": [1, 0.5]}})
    assert "a must be a list of 2 numbers" in answer["answer"]["text"]
    members = viz.Explorer(PullbackManifold(Ensemble([decode, lambda z: 2 * decode(z)])), Z)
    (answer,) = ask(members, {"id": "9", "question": {"kind": "members", "a": [0, 0], "b": [1, 0.5]}})
    assert answer["answer"]["lengths"][1] == pytest.approx(2 * answer["answer"]["lengths"][0], rel=1e-9)
    assert ask(widget, "nonsense") == ask(widget, {"question": {}}) == []


def test_a_missing_package_is_named_with_the_line_to_install_it():
    with pytest.raises(DataError, match=r'anywidget.*pip install "pullgeo\[notebook\]"'):
        absent.Explorer(PullbackManifold(decode), Z)
    ask = "import sys; sys.modules['anywidget'] = None; from pullgeo import viz; print(viz.Explorer.__module__)"
    done = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "pullgeo.viz.explore.absent"


HTML = """<!doctype html><link rel="icon" href="data:,"><style>{css}</style><div id="cell"></div>
<script type="application/json" id="state">{state}</script><script type="module">{script}</script>"""

STUB = """
import widget from "./widget.mjs";
const state = JSON.parse(document.getElementById("state").textContent);
const handlers = {};
const run = (event, ...values) => (handlers[event] ?? []).forEach((handler) => handler(...values));
globalThis.sent = [];
globalThis.saved = 0;
globalThis.model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; run(`change:${name}`); },
  save_changes: () => { globalThis.saved++; },
  on: (event, handler) => (handlers[event] ??= []).push(handler),
  off: (event, handler) => { handlers[event] = (handlers[event] ?? []).filter((one) => one !== handler); },
  send: (message) => globalThis.sent.push(message),
};
globalThis.answer = (message) => run("msg:custom", message);
globalThis.handlersLeft = () => Object.values(handlers).flat().length;
globalThis.cleanUp = widget.render({ model, el: document.getElementById("cell") });
"""


@pytest.mark.full
def test_the_script_draws_follows_and_asks_without_a_network(tmp_path: Path, chromium: str):
    playwright = pytest.importorskip("playwright.sync_api")
    widget = explorer()
    widget.z0, widget.z1 = Z[0, :2], Z[1, :2]
    state = json.dumps(widget.get_state(), default=str).replace("<", "\\u003c")
    files = {
        "https://cell.example/": (
            "text/html",
            HTML.format(css=widget._css, state=state, script=STUB),
        ),
        "https://cell.example/widget.mjs": ("text/javascript", widget._esm),
    }
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        console, asked = [], []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))

        def served(route: object) -> None:
            asked.append(route.request.url)
            kind, body = files.get(route.request.url, ("text/plain", None))
            route.abort() if body is None else route.fulfill(content_type=f"{kind}; charset=utf-8", body=body)

        page.route("https://**/*", served)
        page.goto("https://cell.example/")
        page.wait_for_function("globalThis.cleanUp !== undefined")
        # what Python set is where the map begins, and what the map found is in Python
        assert page.evaluate("model.get('_a')") == pytest.approx(Z[0, :2].tolist())
        curve = page.evaluate("model.get('_curve')")
        assert curve["status"] == "CONVERGED"
        assert curve["nodes"][0] == pytest.approx(Z[0, :2].tolist(), abs=1e-6)
        from_map(widget, _curve=curve)
        assert widget.curve.shape == (len(curve["nodes"]), 2)
        # at rest the kernel is asked, and its answer is shown
        page.wait_for_function("sent.length === 1")
        question = page.evaluate("sent[0]")
        (answer,) = ask(widget, question)
        page.evaluate("(message) => answer(message)", answer)
        page.wait_for_function("model.get('_curve').full !== null")
        exact = page.evaluate("model.get('_curve')")
        assert exact["length"] == pytest.approx(answer["answer"]["length"])
        # Python moves an end, the map follows and asks anew
        page.evaluate("model.set('_b', [0.5, 0.25])")
        assert page.evaluate("model.get('_curve').nodes.at(-1)") == pytest.approx([0.5, 0.25], abs=1e-6)
        page.wait_for_function("sent.length === 2")
        page.evaluate("answer({id: sent[1].id, answer: {status: 'FAILED', text: 'RuntimeError: no such digit'}})")
        page.wait_for_function("document.getElementById('cell').textContent.includes('no such digit')")
        # the map selects, Python is told
        saved = page.evaluate("saved")
        page.evaluate("model.set('selection', [2, 3])")
        assert page.evaluate("saved") >= saved
        assert page.locator("#cell script").count() == 0
        page.evaluate("cleanUp()")
        assert page.evaluate("handlersLeft()") == 0
        assert page.locator("#cell").inner_text() == ""
        browser.close()
    assert console == []
    assert set(asked) == set(files)


@pytest.mark.full
def test_planes_are_chosen_in_python_and_on_the_map():
    widget = explorer(3)
    assert widget.plane == "dims:0,1"
    widget.z0, widget.selection, widget.pins = Z[4], [2], [{"z0": [0, 1], "z1": [1, 1]}]
    widget.plane = "dims:2,0"
    # what was chosen on the old plane means nothing on the new one
    assert (widget.z0, widget.selection, widget.pins) == (None, (), [])
    assert widget.get_state()["_payload"]["plane"]["name"] == "dims:2,0"
    from_map(widget, _a=[0.25, -0.5])
    assert (widget.z0[2], widget.z0[0]) == (0.25, -0.5)
    assert widget.z0[1] == pytest.approx(float(Z[:, 1].mean()))
    (sent,) = ask(widget, {"id": "x", "question": {"kind": "map", "plane": "dims:1,2"}})
    assert sent["answer"]["status"] == "DRAWN"
    assert widget.plane == "dims:1,2"
    assert widget.get_state()["_payload"]["plane"]["name"] == "dims:1,2"
    (sent,) = ask(widget, {"id": "y", "question": {"kind": "map", "plane": "dims:1,9"}})
    assert "from 0 to 2" in sent["answer"]["text"]
    with pytest.raises(OptionError, match="plane must be"):
        widget.plane = "rows"
    assert widget.plane == "dims:1,2"


def test_a_decoder_that_fails_on_another_plane_leaves_the_map_as_it_is(monkeypatch: pytest.MonkeyPatch):
    widget = explorer(3)
    before = widget.get_state()

    def fails(*, plane: object) -> dict:
        raise RuntimeError("no such digit")

    monkeypatch.setattr(widget, "_draw", fails)
    (sent,) = ask(widget, {"id": "x", "question": {"kind": "map", "plane": "dims:2,1"}})
    assert (sent["id"], sent["answer"]["status"]) == ("x", "FAILED")
    assert "no such digit" in sent["answer"]["text"]
    assert widget.plane == "dims:0,1"
    assert widget.get_state() == before
