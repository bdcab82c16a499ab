"""The page that is served."""

import json
import re
import sys
from collections.abc import Callable

import pytest
import torch

from pullgeo import PullbackManifold
from pullgeo.app import serve
from pullgeo.errors import OptionError, ShapeError

NASTY = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "x" * 10_000]
Z = torch.randn(9, 2, generator=torch.Generator().manual_seed(1))


def picture(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z, z.sin(), z.cos()], 1)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the server would have been given."""
    given: dict = {}

    def listen(draw: Callable[[], str], exact: object, **options: object) -> None:
        given.update(page=draw(), exact=exact, **options)

    # the function of the same name hides the module
    monkeypatch.setattr(sys.modules["pullgeo.app.serve"], "listen", listen)
    return given


def payload(page: str) -> dict:
    (found,) = json.loads(re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)[1])
    return found


def test_words_of_the_users_are_no_markup(served: dict):
    serve(PullbackManifold(picture), Z, NASTY * 3, title=NASTY[0])
    page = served["page"]
    assert page.count("</script>") == 3
    assert NASTY[0] not in page
    assert NASTY[1] not in page
    assert payload(page)["latents"]["labels"]["names"] == sorted(NASTY)
    assert payload(page)["title"] == NASTY[0]
    assert "connect-src 'self'" in page
    head = page.split('<script type="application/json"')[0]
    assert not re.findall(r"(?:src|href)=\"(?!data:,)", head)


def test_the_page_has_what_the_decoder_returns(served: dict):
    serve(PullbackManifold(picture), Z, image_shape=(2, 3), limit=3.0, host="localhost")
    decode = payload(served["page"])["decode"]
    assert (decode["kind"], decode["shape"]) == ("image", [2, 3])
    assert decode["range"] == pytest.approx([float(picture(Z).min()), float(picture(Z).max())], abs=1e-6)
    assert (served["limit"], served["host"], served["browser"]) == (3.0, "localhost", False)
    serve(PullbackManifold(picture), Z)
    assert payload(served["page"])["decode"]["kind"] == "bars"


def test_what_does_not_fit_is_refused_before_anything_listens(served: dict):
    with pytest.raises(ShapeError, match="image_shape"):
        serve(PullbackManifold(picture), Z, image_shape=(2, 2))
    with pytest.raises(ShapeError, match="labels"):
        serve(PullbackManifold(picture), Z, ["a"])
    with pytest.raises(OptionError):
        serve(PullbackManifold(picture), Z, image_shape=(0, 2))
    assert not served


def test_other_planes_are_drawn_as_the_first_was(served: dict):
    z = torch.randn(9, 3, generator=torch.Generator().manual_seed(2))
    serve(PullbackManifold(picture), z, ["a"] * 9, plane="dims:2,0", title="T")
    first = payload(served["page"])
    assert (first["plane"]["name"], first["plane"]["dimensions"]) == ("dims:2,0", 3)
    answer = served["exact"].task({"kind": "map", "plane": "latents:4,0,7"})()
    assert (answer["status"], answer["payload"]["plane"]["name"]) == ("DRAWN", "latents:4,0,7")
    other = answer["payload"]
    assert (other["title"], other["latents"]["labels"]["names"]) == ("T", ["a"])
    json.dumps(answer, allow_nan=False)
