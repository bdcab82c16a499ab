"""Pictures of latent spaces: plotly figures, and a page that opens without a network.

Plot functions take results and return a plain `plotly.graph_objects.Figure`, and show nothing. Those that solve or
shoot geodesics themselves (`geodesic_fan`, distances of `layer_map`) say so.
"""

from typing import TYPE_CHECKING, Any

from pullgeo.viz.decoded_strip import decoded_strip
from pullgeo.viz.distance_spread import distance_spread
from pullgeo.viz.explore.page import explore
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import template
from pullgeo.viz.figures.convergence import convergence
from pullgeo.viz.figures.distance_matrix import distance_matrix
from pullgeo.viz.figures.distance_uncertainty import distance_uncertainty
from pullgeo.viz.figures.embedded_surface import embedded_surface
from pullgeo.viz.figures.fan import geodesic_fan
from pullgeo.viz.figures.indicatrices import indicatrices
from pullgeo.viz.figures.layers import layer_map
from pullgeo.viz.figures.marks import geodesics, latent_points
from pullgeo.viz.figures.profiles import speed_profile
from pullgeo.viz.figures.transport import transported_frame
from pullgeo.viz.latent_map import latent_map
from pullgeo.viz.page import Section, page
from pullgeo.viz.report import latent_report
from pullgeo.viz.table import Cell, Table, pairs_table

if TYPE_CHECKING:
    from pullgeo.viz.explore.widget import Explorer

__all__ = [
    "Cell",
    "Explorer",
    "Section",
    "Slice",
    "Table",
    "convergence",
    "decoded_strip",
    "distance_matrix",
    "distance_spread",
    "distance_uncertainty",
    "embedded_surface",
    "explore",
    "geodesic_fan",
    "geodesics",
    "indicatrices",
    "latent_map",
    "latent_points",
    "latent_report",
    "layer_map",
    "page",
    "pairs_table",
    "speed_profile",
    "template",
    "transported_frame",
]


def __getattr__(name: str) -> Any:
    """The widget when it is asked for: what it needs takes long to import, and may be missing."""
    if name != "Explorer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pullgeo.viz.explore import widget as found
    except ImportError:
        from pullgeo.viz.explore import absent as found  # type: ignore[no-redef]
    return found.Explorer
