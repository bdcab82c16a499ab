"""Everything that the page of a living map carries, as one value that JSON can hold."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import straight_line
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.decoders.ensemble import Ensemble, MeanAndDeviation
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import evaluated
from pullgeo.viz.classes import Labels, classes_of
from pullgeo.viz.explore.accuracy import sample_accurately
from pullgeo.viz.explore.fields import Field, decoder_uncertainty, latent_density, scalar_curvature
from pullgeo.viz.explore.packing import packed
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.explore.surface import Surface, sample_outputs
from pullgeo.viz.pictures import pictures_of

Plane = Slice | str | tuple[int, int] | Points | None
Render = Callable[[Any], Any]

FORMAT = 1
MARGIN = 0.08
_BARS = 64
_RENDER_BATCH = 64


def payload_of(
    manifold: Manifold,
    latents: Points,
    labels: Labels | None,
    *,
    plane: Plane,
    solution: Solution | None,
    names: Sequence[str] | None,
    latent_names: Sequence[str] | None,
    pictures: Any,
    image_shape: tuple[int, ...] | None,
    features: Sequence[str] | None,
    render: Render | None,
    curvature: bool,
    title: str,
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
    surface, accuracy = sample_accurately(on_map, x, y, torch.from_numpy(xy))
    shown = _shown(manifold, cut, surface, z, image_shape, features, render)
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
        return Slice.of_dims(z) if z.shape[1] == 2 else Slice.of_components(z)
    if isinstance(plane, str):
        if plane != "components":
            raise OptionError(
                f"explore: plane must be 'components', two dimensions, three latents or a Slice, got {plane!r}."
            )
        return Slice.of_components(z)
    if isinstance(plane, Tensor | np.ndarray):
        return Slice.through(as_points("explore", plane, name="plane").double())
    return Slice.of_dims(z, plane)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = MARGIN * (high - low) or 1.0
    return low - pad, high + pad


def _shown(
    manifold: Manifold,
    cut: Slice,
    surface: Surface,
    z: Tensor,
    image_shape: tuple[int, ...] | None,
    features: Sequence[str] | None,
    render: Render | None,
) -> dict[str, Any]:
    """``payload.decode``: what is shown of a place."""
    if not isinstance(manifold, PullbackManifold):
        if render is not None or image_shape is not None or features is not None:
            raise OptionError(
                f"explore: a {type(manifold).__name__} decodes nothing; leave image_shape, features and render out."
            )
        return {"kind": "none", "shape": [], "names": None, "range": [0, 1]}
    show = _output(manifold)
    double = show.in_double()
    sample = z[:: max(1, len(z) // 500)]
    if render is not None:
        first = _rendered(render, double.decode(z[:1]).detach())
        shape, kind, limits = _picture_shape(tuple(first.shape[1:])), "image", (0.0, 1.0)
        carrier = sample_outputs(
            lambda places: torch.cat(
                [_rendered(render, double.decode(part).detach()) for part in cut.lift(places).split(_RENDER_BATCH)]
            ),
            surface.x,
            surface.y,
        )
        entries = carrier.decode_payload(own=True)
    else:
        pictures = pictures_of("explore", double, sample, image_shape)
        if pictures is not None:
            channels, height, width = pictures.shape
            kind, limits = "image", (pictures.low, pictures.high)
            shape = [height, width] if channels == 1 else [height, width, channels]
        else:
            with torch.no_grad():
                values = double.decode(sample).flatten(1)
            kind = "bars" if features is not None or values.shape[1] <= _BARS else "line"
            shape, limits = [values.shape[1]], (min(0.0, float(values.min())), float(values.max()))
        if show is manifold and _is_measured(manifold):
            entries = surface.decode_payload()
        else:
            entries = sample_outputs(lambda places: double.decode(cut.lift(places)), surface.x, surface.y)
            entries = entries.decode_payload(own=True)
    if features is not None and len(features) != entries["D"]:
        raise ShapeError(
            f"explore: features must name each of the {entries['D']} outputs of the decoder, got {len(features)} names."
        )
    names = None if features is None else [str(name) for name in features]
    return entries | {"kind": kind, "shape": shape, "names": names, "range": list(limits)}


def _output(manifold: PullbackManifold) -> PullbackManifold:
    """The manifold whose outputs people want to see: of random decoders the mean."""
    decoder = manifold.decoder
    if isinstance(decoder, MeanAndDeviation):
        return PullbackManifold(decoder.mean)
    if isinstance(decoder, Ensemble):
        return PullbackManifold(lambda z: torch.stack([member(z) for member in decoder.members]).mean(0))
    return manifold


def _is_measured(manifold: PullbackManifold) -> bool:
    """Whether what is shown is what measures, so that one surface serves both."""
    ambient = manifold.ambient
    return isinstance(ambient, Flat) and ambient.matrix is None and ambient.embedding is None


def _rendered(render: Render, outputs: Tensor) -> Tensor:
    pictures = torch.as_tensor(np.asarray(render(outputs)))
    if pictures.ndim not in (3, 4) or len(pictures) != len(outputs):
        raise ShapeError(
            "explore: render must return pictures (b, height, width) or (b, height, width, 3) for outputs (b, ...), got "
            f"{tuple(pictures.shape)} for {tuple(outputs.shape)}."
        )
    scaled = pictures.double() / 255 if pictures.dtype == torch.uint8 else pictures.double()
    # channels lead, as the page has them
    return scaled if pictures.ndim == 3 else scaled.movedim(-1, 1)


def _picture_shape(shape: tuple[int, ...]) -> list[int]:
    return list(shape) if len(shape) == 2 else [shape[1], shape[2], shape[0]]


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
    if index is not None and len(np.unique(index[usable])) > 1:
        kept = index[usable]
        middles = np.stack([np.median(places[kept == k], 0) for k in np.unique(kept)])
        away = np.linalg.norm(middles[:, None] - middles[None], axis=-1)
        i, j = np.unravel_index(int(away.argmax()), away.shape)
        ends = [middles[i], middles[j]]
    else:
        axis = int(np.ptp(places, 0).argmax())
        order = places[:, axis].argsort()
        ends = [places[order[int(q * (len(order) - 1))]] for q in (0.1, 0.9)]
    nearest = [places[np.linalg.norm(places - end, axis=1).argmin()] for end in ends]
    return {"z0": nearest[0].tolist(), "z1": nearest[1].tolist()}

