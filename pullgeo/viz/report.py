"""The sections of a report on a latent space."""

from collections.abc import Sequence

from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import at_home, evaluated
from pullgeo.viz.classes import Labels
from pullgeo.viz.decoded_strip import decoded_strip
from pullgeo.viz.latent_map import latent_map
from pullgeo.viz.page import Section
from pullgeo.viz.pictures import pictures_of
from pullgeo.viz.table import pairs_table

_MAP = (
    "Each dot is a latent, coloured by class if classes are known. The background is log √det G, the natural "
    "logarithm of how much volume the decoder makes of a unit of latent volume: where it is dark, a small step in the "
    "latent space changes the output a lot. Solid curves are geodesics, the shortest ways as measured in the output; "
    "dotted ones are the straight lines between the same ends. A click on an entry of a legend hides or shows what it "
    "names."
)
_PAIRS = (
    "A straight line through the latent space is seldom the shortest way. The geodesic's length is the distance "
    "between the two ends; its error estimate comes from measuring it at several resolutions."
)
_STRIPS = (
    "For each pair, what is decoded along the geodesic and along the straight line, and under each picture the length "
    "from the start. A geodesic has constant speed, so that each step changes the picture as much as every other; "
    "along the straight line some steps change next to nothing and others a great deal."
)


@with_progress()
def latent_report(
    manifold: Manifold,
    z: Points,
    labels: Labels | None,
    solution: Solution,
    *,
    names: Sequence[str] | None = None,
    image_shape: tuple[int, ...] | None = None,
    progress: bool = False,
) -> list[Section]:
    """The map, the table of pairs and, where the decoder returns pictures, the strips: what `page` takes.

    Args:
        manifold: the latent space.
        z: latents ``(n, d)``.
        labels: the class of each latent, if there are classes.
        solution: the geodesics to show.
        names: a name for each pair of ``solution``.
        image_shape: how to see the decoder's outputs as pictures; see `decoded_strip`.
        progress: show a progress bar, counting steps.

    Raises:
        ShapeError, DtypeError, OptionError, NonFiniteError: as `latent_map` and `decoded_strip` say.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> manifold = PullbackManifold(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Sigmoid()))
        >>> z = torch.randn(5, 2)
        >>> sections = viz.latent_report(manifold, z, None, manifold.geodesic(z[:2], z[2:4]), image_shape=(2, 3))
        >>> [section.heading for section in sections]
        ['The latent map', 'Geodesics and straight lines', 'Along the way']
    """
    figure = latent_map(manifold, z, labels, solution, names=names)
    sections = [
        Section("The latent map", _MAP, figure),
        Section("Geodesics and straight lines", _PAIRS, pairs_table(manifold, solution, names)),
    ]
    manifold = evaluated(manifold)
    points = at_home(manifold, as_points("latent_report", z))
    if pictures_of("latent_report", manifold, points[:1], image_shape) is not None:
        strips = decoded_strip(manifold, solution, image_shape=image_shape, names=names)
        sections.append(Section("Along the way", _STRIPS, strips))
    return sections
