"""Everything that the page of a living map carries, as one value that JSON can hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import straight_line
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.chunking import PICTURES
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import evaluated
from pullgeo.viz.classes import Labels, classes_of
from pullgeo.viz.explore.accuracy import sample_accurately
from pullgeo.viz.explore.fields import Field, decoder_uncertainty, latent_density, scalar_curvature
from pullgeo.viz.explore.members import members_payload
from pullgeo.viz.explore.outputs import Render, shown_map, shown_payload
from pullgeo.viz.explore.packing import packed
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.explore.surface import Surface
from pullgeo.viz.pictures import pictures_of

Plane = Slice | str | tuple[int, int] | Points | None

FORMAT = 1
MARGIN = 0.08
SIDE: int | None = None
"""Lattice nodes along the longer side to begin with; as many as the budget allows if ``None``."""

PAIRS = 64
"""Random pairs on which the page is checked."""

_BARS = 64


def payload_of(
    manifold: Manifold,
    latents: Points,
    labels: Labels | None,
    *,
    plane: Plane = None,
    solution: Solution | None = None,
    names: Sequence[str] | None = None,
    latent_names: Sequence[str] | None = None,
    pictures: Any = None,
    image_shape: tuple[int, ...] | None = None,
    features: Sequence[str] | None = None,
    render: Render | None = None,
    curvature: bool = False,
    title: str = "Latent geometry",
) -> dict[str, Any]:
    """What `explore` writes into its page; see there for the arguments."""
    z = as_points("explore", latents).double().cpu()
    classes = None if labels is None else classes_of("explore", labels, len(z))
    for what, given in (("latent_names", latent_names), ("pictures", pictures)):
        if given is not None and len(given) != len(z):
            raise ShapeError(f"explore: {what} must have one entry for each of the {len(z)} latents, got {len(given)}.")
    manifold = evaluated(manifold)
    cut = slice_of(z, plane)
    xy = cut.project(z)
    x, y = (_interval(xy[:, k]) for k in (0, 1))
    on_map = cut.restrict(manifold)
    surface, accuracy = sample_accurately(on_map, x, y, torch.from_numpy(xy), side=SIDE, pairs=PAIRS)
    shown = _shown(on_map, surface, torch.from_numpy(xy), image_shape, features, render)
    fields = [latent_density(xy, x, y), decoder_uncertainty(manifold, cut, x, y)]
    if curvature:
        fields.append(scalar_curvature(manifold, cut, x, y))
    return {
        "format": FORMAT,
        "title": title,
        "plane": cut.payload(),
        "surface": surface.payload(),
        "decode": shown,
        "latents": {
            "xy": packed(xy.astype(np.float32)),
            "labels": None
            if classes is None
            else {"names": list(classes.names), "index": packed(classes.index.astype(np.uint8))},
            "names": None if latent_names is None else [str(name) for name in latent_names],
            "pictures": None if pictures is None else _given(pictures, shown),
        },
        "fields": [field.payload() for field in fields if isinstance(field, Field)],
        "members": members_payload(manifold, cut, x, y),
        "curves": [] if solution is None else _curves(manifold, cut, solution, names),
        "start": _start(xy, classes.index if classes is not None else None, surface),
        "accuracy": accuracy.payload(),
    }


def slice_of(z: Float[Tensor, "n d"], plane: Plane) -> Slice:
    """The plane that a map shows.

    Raises:
        OptionError: it is none.
        ShapeError: the latent space has one dimension, or points are not three of its points.
    """
    if isinstance(plane, Slice):
        return plane
    if plane is None:
        return Slice.of_dims(z) if z.shape[1] <= 2 else Slice.of_components(z)
    if isinstance(plane, str):
        return Slice.named(z, plane)
    if isinstance(plane, Tensor | np.ndarray):
        return Slice.through(as_points("explore", plane, name="plane").double())
    return Slice.of_dims(z, plane)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = MARGIN * (high - low) or 1.0
    return low - pad, high + pad


def _shown(
    on_map: Manifold,
    surface: Surface,
    xy: Float[Tensor, "n 2"],
    image_shape: tuple[int, ...] | None,
    features: Sequence[str] | None,
    render: Render | None,
) -> dict[str, Any]:
    """``payload.decode``: what is shown of a place."""
    drawn = None if render is None else lambda outputs: _rendered(render, outputs)
    show = shown_map(on_map, drawn)
    if show is None:
        if render is not None or image_shape is not None or features is not None:
            raise OptionError(
                f"explore: a {type(on_map).__name__} decodes nothing; leave image_shape, features and render out."
            )
        return {"D": 0, "kind": "none", "shape": [], "names": None, "range": [0, 1]}
    sample = xy[:: max(1, len(xy) // 500)]
    with torch.no_grad():
        values = torch.cat([show(part) for (part,) in PICTURES.split(sample)])
    if drawn is not None:
        pictures, kind, limits = None, "image", (0.0, 1.0)
        channels, height, width = (1, *values.shape[1:]) if values.ndim == 3 else values.shape[1:]
    else:
        pictures = pictures_of("explore", PullbackManifold(show), sample, image_shape)
        if pictures is not None:
            (channels, height, width), kind, limits = pictures.shape, "image", (pictures.low, pictures.high)
        else:
            flat = values.flatten(1)
            kind = "bars" if features is not None or flat.shape[1] <= _BARS else "line"
            limits = (min(0.0, float(flat.min())), float(flat.max()))
    size = values[0].numel()
    shape = [height, width, channels][: 2 if channels == 1 else 3] if kind == "image" else [size]
    if features is not None and len(features) != size:
        raise ShapeError(
            f"explore: features must name each of the {size} outputs of the decoder, got {len(features)} names."
        )
    named = None if features is None else [str(name) for name in features]
    entries = shown_payload(on_map, surface, drawn)
    return entries | {"kind": kind, "shape": shape, "names": named, "range": list(limits)}


def _rendered(render: Render, outputs: Tensor) -> Tensor:
    """Pictures in [0, 1], channels first, as the page has them."""
    pictures = torch.as_tensor(render(outputs))
    if pictures.ndim not in (3, 4) or len(pictures) != len(outputs) or (pictures.ndim == 4 and pictures.shape[3] != 3):
        raise ShapeError(
            "explore: render must return pictures (b, height, width) or (b, height, width, 3) for outputs (b, ...), "
            f"got {tuple(pictures.shape)} for {tuple(outputs.shape)}."
        )
    scaled = pictures.double() / 255 if pictures.dtype == torch.uint8 else pictures.double()
    return scaled if pictures.ndim == 3 else scaled.movedim(-1, 1)


def _given(pictures: Any, shown: dict[str, Any]) -> dict[str, Any]:
    """Pictures of the latents as bytes, in the range of what is decoded."""
    values = torch.as_tensor(np.asarray(pictures.numpy(force=True) if isinstance(pictures, Tensor) else pictures))
    flat = values.flatten(1).double()
    if shown["kind"] != "image" or flat.shape[1] != int(np.prod(shown["shape"])):
        raise ShapeError(
            f"explore: pictures must have the shape of what is shown, {shown['shape']}, got {tuple(values.shape[1:])}."
        )
    low, high = (0.0, 255.0) if values.dtype == torch.uint8 else shown["range"]
    levels = ((flat - low) / (high - low) * 255).round().clamp(0, 255)
    return packed(levels.to(torch.uint8).numpy())


def _curves(manifold: Manifold, cut: Slice, solution: Solution, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Geodesics of the whole latent space, projected onto the plane."""
    if names is not None and len(names) != len(solution):
        raise ShapeError(f"explore: names must have one entry for each of {len(solution)} pairs, got {len(names)}.")
    nodes = solution.curve.nodes.detach().double().cpu()
    with torch.no_grad():
        lines = straight_line(nodes[:, 0], nodes[:, -1]).length(manifold.in_double())
    entries = []
    for i, curve in enumerate(nodes):
        flat = cut.project(curve)
        entries.append(
            {
                "name": f"Pair {i + 1}" if names is None else str(names[i]),
                "start": flat[0].tolist(),
                "end": flat[-1].tolist(),
                "nodes": packed(flat.astype(np.float32)),
                "length": _number(solution.length[i]),
                "error": _number(solution.error_estimate[i]),
                "status": solution.status[i].name,
                "text": solution.status[i].value,
                "line": _number(lines[i]),
            }
        )
    return entries


def _number(value: Tensor) -> float | None:
    number = float(value.detach())
    return number if np.isfinite(number) else None


def _start(xy: np.ndarray, index: np.ndarray | None, surface: Surface) -> dict[str, list[float]]:
    """Two latents to begin with: in the middles of the two classes farthest apart, or at the ends of the wider axis."""
    usable = surface.inside(torch.from_numpy(xy)).numpy()
    places = xy[usable]
    ends = None
    if index is not None and len(np.unique(index[usable])) > 1:
        kept = index[usable]
        middles = np.stack([np.median(places[kept == k], 0) for k in np.unique(kept)])
        away = np.linalg.norm(middles[:, None] - middles[None], axis=-1)
        i, j = np.unravel_index(int(away.argmax()), away.shape)
        ends = [middles[i], middles[j]]
    if ends is None or np.linalg.norm(ends[0] - ends[1]) < 0.2 * np.ptp(places, 0).max():
        axis = int(np.ptp(places, 0).argmax())
        order = places[:, axis].argsort()
        ends = [places[order[int(q * (len(order) - 1))]] for q in (0.1, 0.9)]
    nearest = [places[np.linalg.norm(places - end, axis=1).argmin()] for end in ends]
    return {"z0": nearest[0].tolist(), "z1": nearest[1].tolist()}
