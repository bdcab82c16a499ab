"""Reading figures and pages as a browser would, without the code that wrote them."""

import base64
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = traces(figure, name)
    return found


def pixels(data_uri: str) -> np.ndarray:
    kind, data = data_uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return decode_png(base64.b64decode(data))


def decode_png(data: bytes) -> np.ndarray:
    """Grey or RGB pixels of a PNG file whose scan lines are not filtered."""
    assert data[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + content),)
        chunks[kind] = content
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width) if colour == 0 else (height, width, 3))


def figures_in(page: Path) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return [json.loads(text) for text in found]


def payloads_in(page: Path) -> list[dict[str, Any]]:
    """The planes that the page of a living map carries."""
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def payload_in(page: Path) -> dict[str, Any]:
    """The one plane that it carries."""
    (found,) = payloads_in(page)
    return found


def array_in(packed: dict[str, Any]) -> np.ndarray:
    """A packed array of a payload."""
    return np.frombuffer(base64.b64decode(packed["data"]), packed["dtype"]).reshape(packed["shape"])
