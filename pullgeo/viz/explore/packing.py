"""Arrays as JSON carries them: base64 of little-endian numbers, with their dtype and shape."""

import base64
from typing import Any

import numpy as np

DTYPES = ("uint8", "int8", "int16", "int32", "float16", "float32", "float64")


def packed(array: np.ndarray) -> dict[str, Any]:
    """The array as ``{"dtype", "shape", "data"}``; read on the page by ``unpackArray``.

    Raises:
        ValueError: the page knows no such dtype.

    Example:
        >>> import numpy as np
        >>> packed(np.array([[1, 2]], dtype=np.int16))
        {'dtype': 'int16', 'shape': [1, 2], 'data': 'AQACAA=='}
    """
    name = array.dtype.name
    if name not in DTYPES:
        raise ValueError(f"packed: dtype must be one of {', '.join(DTYPES)}, got {name}.")
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {"dtype": name, "shape": list(array.shape), "data": base64.b64encode(plain.tobytes()).decode()}


def unpacked(entry: dict[str, Any]) -> np.ndarray:
    """The array that `packed` packed."""
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(entry["data"]), dtype=dtype).reshape(entry["shape"])
