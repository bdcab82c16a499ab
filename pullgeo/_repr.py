"""How values describe themselves: one line in a terminal, a small table in a notebook."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 12
"""Rows of a table, and curves of a picture, that a notebook shows."""


class ShortRepr:
    """A base whose ``__repr__`` its dataclasses keep.

    ``@dataclass`` writes a ``__repr__`` that prints every field, whole tensors included, unless it finds one in the
    class itself.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in vars(cls):
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]


def shape_text(shape: Iterable[int]) -> str:
    """``3x28x28``, or 1 for a single number."""
    return "x".join(map(str, shape)) or "1"


def function_text(function: Any) -> str:
    """The name of a function, or the class of a module, with its dimensions where its first and last layers tell."""
    if not isinstance(function, nn.Module):
        return str(getattr(function, "__qualname__", type(function).__name__))
    inner = (m for m in function.modules() if next(m.children(), None) is None)
    layers = [m for m in inner if next(m.parameters(), None) is not None]
    first, last = (
        (getattr(layers[0], "in_features", None), getattr(layers[-1], "out_features", None)) if layers else (None, None)
    )
    return type(function).__name__ + ("" if first is None or last is None else f"({first} -> {last})")


def counted(statuses: Iterable[Enum]) -> str:
    """``3 CONVERGED, 1 COARSE``."""
    return ", ".join(f"{n} {status.name}" for status, n in Counter(statuses).items()) or "none"


def html_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> str:
    """A small table of numbers and names, which are ours: nothing of a user's stands in it."""
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    more = f"<p>… and {total - len(rows)} more</p>" if total > len(rows) else ""
    return f"<div><p>{title}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}</div>"


def html_curves(title: str, nodes: Tensor, size: int = 120) -> str:
    """The first two coordinates of some curves as a small picture."""
    shown = nodes[:SHOWN].detach().double().cpu()
    points = shown[..., :2] if shown.shape[-1] > 1 else _over_time(shown)
    flat = points.flatten(0, 1)
    finite = flat[flat.isfinite().all(1)]
    if not len(finite):
        return f"<p>{title}</p>"
    low, high = finite.amin(0), finite.amax(0)
    scale = (size - 8) / float((high - low).amax().clamp(min=1e-300))
    lines = []
    for curve in points:
        good = curve[curve.isfinite().all(1)]
        place = (good - low) * scale + 4
        text = " ".join(f"{x:.1f},{size - y:.1f}" for x, y in place.tolist())
        lines.append(f'<polyline points="{text}" fill="none" stroke="currentColor"/>')
    return f'<div><p>{title}</p><svg width="{size}" height="{size}" role="img">{"".join(lines)}</svg></div>'


def _over_time(values: Tensor) -> Tensor:
    """Curves of one coordinate as graphs over time, as wide as they are high."""
    reach = float((values.amax() - values.amin()).clamp(min=1e-300))
    time = torch.linspace(0, reach, values.shape[1], dtype=values.dtype)[None, :, None].expand_as(values)
    return torch.cat([time, values], -1)
