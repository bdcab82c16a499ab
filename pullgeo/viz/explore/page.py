"""The living map as one file."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from os import PathLike
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from pullgeo._version import __version__
from pullgeo.errors import OptionError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.atomic_file import write_atomically
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points
from pullgeo.viz.classes import Labels
from pullgeo.viz.explore.bundle import bundle, front
from pullgeo.viz.explore.outputs import Render
from pullgeo.viz.explore.payload import Plane, payload_of
from pullgeo.viz.page import POLICY, Section, page_script, paragraphs, section_html

_ALONE = "Everything on this page is inside this file; it opens without a network."


@with_progress()
def explore(
    manifold: Manifold,
    latents: Points,
    labels: Labels | None = None,
    *,
    path: str | PathLike[str] = "map.html",
    solution: Solution | None = None,
    names: Sequence[str] | None = None,
    plane: Plane | Mapping[str, Plane] = None,
    latent_names: Sequence[str] | None = None,
    pictures: Any = None,
    image_shape: tuple[int, ...] | None = None,
    features: Sequence[str] | None = None,
    render: Render | None = None,
    curvature: bool = False,
    title: str = "Latent geometry",
    lead: str = "",
    sections: Sequence[Section] = (),
    progress: bool = False,
) -> Path:
    """Write a living map of a latent space: one page, on which two points are dragged and the geodesic follows.

    The page carries the decoder as a spline surface over a plane of the latent space, and solves for geodesics itself:
    it opens from a file with no network, no server and no Python. It shows what is decoded along the geodesic and along
    the straight line, their lengths and speeds; volume, anisotropy, curvature, distances, density and the decoder's
    uncertainty, and where an ensemble's members disagree, as layers; the spread of the members' distances; unit balls;
    geodesics that are shot, or leave a point in all directions; Fréchet means of latents that are lassoed; and the
    surface in three dimensions. How far its curves and lengths are off is measured against the library's own solver on
    random pairs while the page is written, and stated on it.

    Args:
        manifold: the latent space: a `PullbackManifold` of any decoder, or a `MetricManifold`.
        latents: ``(n, d)``, d at least 2.
        labels: the class of each latent, if there are classes.
        path: where to write; the folder must exist.
        solution: geodesics, solved in all d dimensions, that the page lists and shows as they are.
        names: a name for each pair of ``solution``.
        plane: what is shown of more than two dimensions: two of them ``(i, j)``, ``"components"`` for the first two
            principal components (the default), three latents ``(3, d)`` to lay the plane through, a text as
            `Slice.named` takes it, such as ``"latents:4,0,7"``, or a `Slice`. A dictionary of several gives a page on
            which one chooses between them by their names; it is as large as all of them. Curves that are dragged are
            geodesics of the plane, never shorter than those of the whole space; the page says so.
        latent_names: a name for each latent, to find it by.
        pictures: what the latents were encoded from, in the shape of the decoder's outputs; shown beside what is
            decoded. They are stored at one byte a value.
        image_shape: how to see the decoder's outputs as pictures, ``(height, width)`` or ``(channels, height, width)``;
            outputs that have such a shape already need none.
        features: a name for each output of a decoder that returns no pictures, such as genes.
        render: outputs ``(b, *out)`` to pictures ``(b, height, width)`` or ``(b, height, width, 3)``, in [0, 1] or
            uint8, for decoders whose outputs are no pictures but can be drawn. It is called on a lattice of places,
            whose pictures are interpolated.
        curvature: add a layer of scalar curvature of the whole space, which for d > 2 is not that of the plane; it
            takes second derivatives at 576 points.
        title: of the page.
        lead: plain text beside it.
        sections: what follows below the map, as `page` takes it.
        progress: show a progress bar, counting steps.

    Returns:
        The path written to.

    Raises:
        ShapeError, DtypeError, NonFiniteError: latents, labels, names or pictures do not fit; the decoder is finite
            nowhere on the plane.
        OptionError: an option is out of its range.
        OSError: the file cannot be written.

    Warns:
        CoarseMapWarning: lengths or curves are off by more than half a per cent for one in twenty random pairs.

    Cost: a forward pass for each of up to 128 x 128 lattice nodes and, where outputs are many, two tangents of each; 64
    geodesics for the check; the metrics of an ensemble's members at 25 000 places. About 1.5 MB beside the 5 MB of
    plotly's library.

    Example:
        >>> import tempfile, torch
        >>> from pullgeo import PullbackManifold, viz
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6))
        >>> z = torch.randn(50, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     viz.explore(PullbackManifold(decoder), z, path=Path(folder) / "map.html").stat().st_size > 1e6
        True
    """
    check_manifold("explore", manifold)
    draw = partial(
        payload_of,
        manifold,
        latents,
        labels,
        solution=solution,
        names=names,
        latent_names=latent_names,
        pictures=pictures,
        image_shape=image_shape,
        features=features,
        render=render,
        curvature=curvature,
        title=title,
    )
    if isinstance(plane, Mapping):
        if not plane:
            raise OptionError("explore: plane is an empty dictionary; give it at least one plane, or leave it out.")
        maps = {str(name): draw(plane=one) for name, one in plane.items()}
    else:
        maps = {"": draw(plane=plane)}
    target = Path(path)
    write_atomically(target, explorer_html(maps, title=title, lead=lead, sections=sections))
    return target


def explorer_html(
    maps: Mapping[str, dict[str, Any]],
    *,
    title: str,
    lead: str = "",
    sections: Sequence[Section] = (),
    policy: str = POLICY,
    host: str = "",
    promise: str = _ALONE,
) -> str:
    """The page of a map, or of several to choose from.

    Args:
        maps: from `payload_of`, by the names of their planes.
        title: of the page.
        lead: plain text beside it.
        sections: what follows below the map.
        policy: what the browser enforces.
        host: JavaScript that sets ``globalThis.pullgeoHost`` for a page that has something behind it.
        promise: the last words.
    """
    carried = [{"name": name, **one} for name, one in maps.items()]
    return Template(front("page.html")).substitute(
        version=__version__,
        policy=policy,
        title=escape(title),
        lead=paragraphs(lead),
        css=front("explore.css"),
        frame=front("frame.css"),
        sections="\n".join(section_html(entry) for entry in sections),
        payload=json.dumps(carried, allow_nan=False).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        script=f"{host}\n{bundle('hosts/page.js')}\n{page_script() if sections else ''}",
        promise=promise,
    )
