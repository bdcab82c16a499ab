"""Who is answered, and what: every answer but the page is JSON with a reason."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

starlette = pytest.importorskip("starlette")

from starlette.testclient import TestClient  # noqa: E402

from pullgeo.app.pool import Pool  # noqa: E402
from pullgeo.app.server import MAX_BODY, application, is_loopback  # noqa: E402
from pullgeo.viz.explore.exact import Exact  # noqa: E402

TOKEN = "tökén-8"
BASE = "http://127.0.0.1:8123"
GOOD = {"client": "me", "kind": "geodesic", "a": [0, 0], "b": [1, 0.5]}


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(threads=2, limit=60)
    yield made
    made.close()


@pytest.fixture
def client(exact: Exact, pool: Pool) -> TestClient:
    return TestClient(application("<p>page</p>", exact, pool, TOKEN), base_url=BASE, raise_server_exceptions=False)


def ask(client: TestClient, message: Any = GOOD, token: str = TOKEN, **headers: str) -> tuple[int, dict]:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    headers = {"content-type": "application/json", "origin": BASE, **headers}
    answer = client.post(f"/{token}/solve", content=body, headers=headers)
    found = answer.json()
    assert isinstance(found["status"], str)
    assert found["text"]
    return answer.status_code, found


def test_the_page_is_at_the_address_with_the_token(client: TestClient):
    answer = client.get(f"/{TOKEN}/")
    assert (answer.status_code, answer.text) == (200, "<p>page</p>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_question_is_answered_exactly(client: TestClient, exact: Exact):
    code, answer = ask(client)
    assert code == 200
    own = exact.manifold.geodesic(*torch.tensor([[0, 0, 0], [1, 0.5, 0]]).double())
    assert answer["status"] == "CONVERGED"
    assert answer["length"] == pytest.approx(float(own.length), rel=1e-9)


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%00", "%ff", "💥" * 500])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_without_the_token_nothing_is_answered(client: TestClient, token: str, method: str):
    for path in (f"/{token}", f"/{token}/", f"/{token}/solve", f"//{TOKEN}/", f"/{token}/{TOKEN}/"):
        answer = client.request(method, path, headers={"origin": BASE})
        assert answer.status_code == 403
        assert "token" in answer.json()["text"]
        assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:8123", "http://127.0.0.1:8124", BASE + ".evil.example", ""],
)
def test_pages_from_elsewhere_are_not_answered(client: TestClient, origin: str):
    code, answer = ask(client, origin=origin)
    assert code == 403
    assert "another page" in answer["text"]
    assert client.get(f"/{TOKEN}/", headers={"origin": origin}).status_code == 403


def test_a_question_without_an_origin_is_not_answered(client: TestClient):
    answer = client.post(f"/{TOKEN}/solve", json=GOOD)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8123", "", "192.0.2.1:8123", "[2001:db8::1]:8123", "127.0.0.1.evil.example"]
)
def test_names_that_were_made_to_point_here_are_not_answered(client: TestClient, host: str):
    code, answer = ask(client, host=host, origin=f"http://{host}")
    assert code == 403
    assert "another name" in answer["text"]


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:8123", "LOCALHOST:8123", "[::1]:8123"])
def test_every_name_of_the_loopback_is_answered(client: TestClient, host: str):
    assert ask(client, host=host, origin=f"http://{host}")[0] == 200


def test_a_server_that_others_reach_is_answered_under_every_address_and_its_name(exact: Exact, pool: Pool):
    client = TestClient(application("page", exact, pool, TOKEN, "0.0.0.0"), base_url=BASE)
    for host in ("192.0.2.1:8123", "[2001:db8::1]:8123", "localhost:8123"):
        assert ask(client, host=host, origin=f"http://{host}")[0] == 200
    assert ask(client, host="evil.example:8123", origin="http://evil.example:8123")[0] == 403


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"client": "me", "kind": "geodesic", "a": [NaN, 0], "b": [1, 1]}', "NaN"),
        (b'{"client": "me", "kind": "geodesic", "a": [-Infinity, 0], "b": [1, 1]}', "Infinity"),
        (b'{"client": "me", "kind": "geodesic", "a": [1e999, 0], "b": [1, 1]}', "infinity"),
        (b'{"client": "me", "kind": "geodesic", "a": [' + b"9" * 5000 + b', 0], "b": [1, 1]}', "digits"),
        ([], "client"),
        ("text", "client"),
        ({**GOOD, "client": ""}, "client"),
        ({**GOOD, "client": "x" * 65}, "client"),
        ({**GOOD, "client": 7}, "client"),
        ({**GOOD, "a": ["0", "0"]}, "list of 2 numbers"),
        ({**GOOD, "a": [0, 0, 0]}, "2 coordinates, got 3"),
        ({**GOOD, "kind": "__class__"}, "kind must be"),
        ({"client": "me", "kind": "mean", "rows": [7]}, "between 0 and 6"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(client: TestClient, message: Any, words: str):
    code, answer = ask(client, message)
    assert (code, answer["status"]) == (400, "REFUSED")
    assert words in answer["text"]
    assert ask(client)[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_forms_of_other_pages_cannot_ask(client: TestClient, kind: str):
    code, answer = ask(client, **{"content-type": kind})
    assert code == 400
    assert "application/json" in answer["text"]


@pytest.mark.parametrize("size", [MAX_BODY + 1, 10_000_000])
def test_long_bodies_are_refused(client: TestClient, size: int):
    code, answer = ask(client, b" " * size)
    assert code == 413
    assert str(MAX_BODY) in answer["text"]
    assert ask(client)[0] == 200


def test_bodies_of_an_untold_length_are_counted_too(client: TestClient):
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    headers = {"content-type": "application/json", "origin": BASE}
    answer = client.post(f"/{TOKEN}/solve", content=pieces(), headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path", ["solve", "other", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "solve/", "static/x.js"]
)
def test_there_is_nothing_else_to_get(client: TestClient, path: str):
    answer = client.get(f"{BASE}/{TOKEN}/{path}")
    assert answer.status_code in (403, 404, 405)
    assert answer.json()["text"]
    assert "root:" not in answer.text


def test_a_decoder_that_raises_or_hangs_does_not_end_the_server(client: TestClient, pool: Pool):
    assert ask(client, {**GOOD, "b": [0, 11]})[1]["status"] == "FAILED"
    pool.limit = 0.2
    assert ask(client, {**GOOD, "b": [0, 7]})[1]["status"] == "TIMEOUT"
    assert ask(client, {**GOOD, "b": [0, -11]})[1]["status"] == "TIMEOUT"
    pool.limit = 60
    code, answer = ask(client)
    assert (code, answer["status"]) == (200, "CONVERGED")
    assert pool.load["stuck"] <= 1


def test_when_the_server_ends_it_says_so(client: TestClient, pool: Pool):
    pool.close()
    code, answer = ask(client)
    assert (code, answer["status"]) == (503, "CLOSED")


def test_several_ask_at_once_and_get_their_own_answers(client: TestClient, exact: Exact):
    def ends(i: int) -> list[float]:
        return [1 + i / 8, 0.5]

    def drag(i: int) -> list[dict]:
        return [ask(client, {**GOOD, "client": str(i), "b": ends(i)})[1] for _ in range(3)]

    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(drag, range(4)))
    for i, own in enumerate(answers):
        length = float(exact.manifold.dist(torch.zeros(3).double(), torch.tensor([*ends(i), 0]).double()))
        assert [a["length"] for a in own] == pytest.approx([length] * 3, rel=1e-9)


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "example.org")))
