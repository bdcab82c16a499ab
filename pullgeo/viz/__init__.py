"""Pictures of latent spaces: plotly figures, and a page that opens without a network.

Plot functions take results and return a plain `plotly.graph_objects.Figure`; they show nothing and solve nothing.
"""

from pullgeo.viz.decoded_strip import decoded_strip
from pullgeo.viz.distance_spread import distance_spread
from pullgeo.viz.latent_map import latent_map
from pullgeo.viz.page import Section, page
from pullgeo.viz.report import latent_report
from pullgeo.viz.table import Cell, Table, pairs_table

__all__ = [
    "Cell",
    "Section",
    "Table",
    "decoded_strip",
    "distance_spread",
    "latent_map",
    "latent_report",
    "page",
    "pairs_table",
]
