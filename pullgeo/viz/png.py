"""Pixels as PNG, the one picture format that a page can hold as text."""

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_GREY, _RGB = 0, 2


def png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """Encode a grey (1 channel) or RGB (3 channels) picture, 8 bits a channel, without loss.

    Source: W3C, *Portable Network Graphics Specification*, sections 5 and 11.

    Example:
        >>> png(np.zeros((2, 3, 1), dtype=np.uint8))[1:4]
        b'PNG'
    """
    height, width, channels = pixels.shape
    colour_type = {1: _GREY, 3: _RGB}[channels]
    # each scan line starts with the number of its filter; 0 is no filter
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def data_uri(pixels: UInt8[np.ndarray, "height width channels"]) -> str:
    """The picture as a ``data:`` address, which needs no file and no network."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
