"""A real server at a real address, asked by a browser and ended by Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pullgeo.app.listen import check_installed, listen
from pullgeo.errors import DataError, OptionError
from pullgeo.viz.explore.exact import Exact
from tests.app.running import PATIENCE, Running, start


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = start(tmp_path_factory.mktemp("server"), 60)
    yield started
    started.process.kill()
    started.process.communicate()


GOOD = {"client": "me", "kind": "geodesic", "a": [0, 0], "b": [1, 0.5]}


@pytest.mark.full
def test_ctrl_c_ends_it_cleanly_also_while_a_decoder_hangs(tmp_path: Path):
    started = start(tmp_path, 0.5)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", started.address)
    assert started.ask({**GOOD, "b": [0, -11]})[1]["status"] == "TIMEOUT"
    started.process.send_signal(signal.SIGINT)
    out, err = started.process.communicate(timeout=PATIENCE)
    assert (started.process.returncode, out, err) == (0, "ended\n", "")


def test_ctrl_c_before_the_loop_runs_ends_it_quietly(exact: Exact, monkeypatch: pytest.MonkeyPatch):
    import uvicorn

    made = uvicorn.Config.get_loop_factory

    def pressed(config: uvicorn.Config) -> object:
        signal.raise_signal(signal.SIGINT)  # when the coroutine is there, and nobody awaits it yet
        return made(config)

    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", pressed)
    before = signal.getsignal(signal.SIGINT)
    listen(lambda: "a page", exact, announce=lambda address: None)
    assert signal.getsignal(signal.SIGINT) is before


def test_it_answers_over_a_real_connection(running: Running):
    code, answer = running.ask(GOOD)
    assert (code, answer["status"]) == (200, "CONVERGED")
    assert running.ask(b"x" * 10_000_000)[0] == 413
    assert running.ask(GOOD, Origin="http://evil.example")[0] == 403
    code, answer = running.ask({**GOOD, "b": [0, 11]})
    assert (code, answer["status"]) == (200, "FAILED")
    assert "no such digit" in answer["text"]
    assert running.ask(GOOD)[1]["status"] == "CONVERGED"


def test_only_this_machine_reaches_it(running: Running):
    _, port, _ = running.where
    listening = Path("/proc/net/tcp").read_text()
    (local,) = re.findall(rf"^ *\d+: ([0-9A-F]{{8}}):{port:04X} 0{{8}}:0000 0A", listening, re.MULTILINE)
    assert local == "0100007F"


DRAG = """
async (count) => {
  const statuses = {};
  const note = (status) => { statuses[status] = (statuses[status] || 0) + 1; };
  const all = [];
  for (let i = 0; i < count; i++) {
    const abort = new AbortController();
    if (i % 7 === 3) setTimeout(() => abort.abort(), 3);
    const asked = pullgeoHost.exact({a: [0, 0], b: [1 + 0.01 * i, 0.5], signal: abort.signal});
    all.push(asked.then((curve) => note(curve.status), (error) => note(error.name + ": " + error.message)));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await Promise.all(all);
  const last = await pullgeoHost.exact({a: [0, 0], b: [1, 0.5]});
  const mean = await pullgeoHost.mean({rows: [0, 2, 3]});
  const shot = await pullgeoHost.shoot({a: [0, 0], v: [1, 0.5]});
  let raised = "";
  await pullgeoHost.exact({a: [0, 0], b: [0, 11]}).catch((error) => { raised = error.message; });
  return {statuses, last, mean, shot, raised};
}
"""


@pytest.mark.full
def test_four_browsers_drag_at_once(running: Running, chromium: str):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        console, requests, pages = [], [], []
        for _ in range(4):
            page = browser.new_context().new_page()
            page.on("console", lambda message: console.append(message.text))
            page.on("pageerror", lambda error: console.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(running.address)
            pages.append(page)
        # all four begin before any is waited for
        for page in pages:
            page.evaluate(f"() => {{ globalThis.drag = ({DRAG})(20); }}")
        found = [page.evaluate("globalThis.drag") for page in pages]
        before = running.memory
        for page in pages:
            page.evaluate(f"() => {{ globalThis.drag = ({DRAG})(20); }}")
        again = [page.evaluate("globalThis.drag") for page in pages]
        after = running.memory
        browser.close()
    for drag in found + again:
        told = set(drag["statuses"])
        assert "CONVERGED" in told
        assert all(word == "CONVERGED" or "newer request" in word or word.startswith("AbortError") for word in told)
        assert sum(drag["statuses"].values()) == 20
        assert drag["last"]["status"] == "CONVERGED"
        assert drag["last"]["length"] == pytest.approx(found[0]["last"]["length"], rel=1e-9)
        assert drag["last"]["nodes"][-1] == pytest.approx([1, 0.5])
        assert drag["mean"]["status"] == "CONVERGED"
        assert drag["shot"]["full"][0] == [0, 0]
        assert "no such digit" in drag["raised"]
    assert console == []
    assert {url.removeprefix(running.address) for url in requests} <= {"", "solve"} | {
        u for u in requests if u.startswith("data:")
    }
    assert after - before < 20e6


def test_the_page_follows_the_pointer_and_shows_the_exact_answer_or_why_there_is_none(running: Running, chromium: str):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        console = []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(running.address)
        exact = "document.querySelector('.pg-status')?.dataset.exact === 'true'"
        page.wait_for_function(exact)
        box = page.locator(".pg-knob-b .pg-dot").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        before = page.evaluate("explorer.state.z1")
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 20, y - 15, steps=5)
        page.wait_for_function("document.querySelector('.pg-status').dataset.exact === 'false'")
        page.mouse.up()
        after = page.evaluate("explorer.state.z1")
        assert after[0] > before[0]
        assert after[1] > before[1]
        page.wait_for_function(exact)
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("explorer.state.z1")[0] < after[0]
        page.evaluate("explorer.setState({z1: [0, 11]})")
        page.wait_for_function("document.querySelector('.pg-status').textContent.includes('no such digit')")
        page.evaluate("explorer.setState({z1: [0.5, 0.5]})")
        page.wait_for_function(exact)
        browser.close()
    assert console == []


@pytest.mark.full
def test_another_plane_is_drawn_where_one_is_asked_for(tmp_path: Path, chromium: str):
    playwright = pytest.importorskip("playwright.sync_api")
    running = start(tmp_path, 60, d=4)
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_context().new_page()
            console: list[str] = []
            page.on("console", lambda message: console.append(message.text))
            page.on("pageerror", lambda error: console.append(str(error)))
            page.goto(running.address)
            exact = "document.querySelector('.pg-status')?.dataset.exact === 'true'"
            page.wait_for_function(exact)
            assert "Principal components 1 and 2" in page.inner_text(".pg-notes")
            page.get_by_label("Plane").select_option("dimensions")
            page.get_by_label("Which of them").fill("0, 0")
            page.get_by_role("button", name="Draw").click()
            page.wait_for_function("document.querySelector('.pg-planes').textContent.includes('2 different numbers')")
            page.get_by_label("Which of them").fill("0, 3")
            page.get_by_role("button", name="Draw").click()
            page.wait_for_function(
                "document.querySelector('.pg-notes').textContent.includes('Dimensions 0 and 3 vary')"
            )
            page.wait_for_function(exact)
            # what is solved exactly is on this plane
            curve, state = page.evaluate("explorer.exact"), page.evaluate("explorer.state")
            assert [curve["full"][0][k] for k in (0, 3)] == pytest.approx(state["z0"])
            page.wait_for_function("location.hash.includes('plane=dims')")
            page.reload()
            page.wait_for_function(
                "document.querySelector('.pg-notes')?.textContent.includes('Dimensions 0 and 3 vary')"
            )
            assert page.evaluate("explorer.state.z0") == pytest.approx(state["z0"], rel=1e-5)
            browser.close()
        assert console == []
    finally:
        running.process.kill()
        running.process.communicate()


def test_a_port_that_is_taken(exact: Exact):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(DataError, match="Leave out --port"):
            listen(lambda: "page", exact, port=other.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_there_is_not(exact: Exact, port: int):
    with pytest.raises(OptionError, match="--port"):
        listen(lambda: "page", exact, port=port)


def test_an_address_that_there_is_not(exact: Exact):
    with pytest.raises(DataError, match="cannot listen"):
        listen(lambda: "page", exact, host="192.0.2.1")


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_a_missing_package_is_named_with_the_line_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=rf'{name}.*pip install "pullgeo\[app\]"'):
        check_installed()


def test_the_room_needs_none_of_them_until_it_serves():
    ask = (
        "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None; import pullgeo.app, pullgeo.cli.explore"
    )
    subprocess.run([sys.executable, "-c", ask], check=True)


def test_latents_are_checked_first(exact: Exact):
    from pullgeo.app import serve

    with pytest.raises(Exception, match="NaN"):
        serve(exact.manifold, torch.full((3, 3), torch.nan))
