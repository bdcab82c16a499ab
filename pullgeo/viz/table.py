"""Numbers of a solution, pair by pair, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.lengths import straight_lengths
from pullgeo.viz.pairs import pair_names


@dataclass(frozen=True)
class Cell:
    """An entry of a table.

    Attributes:
        text: what it says.
        kind: ``"text"``, ``"number"``, ``"good"``, ``"bad"`` or ``"badge"``; badges are the numbers on the map.
    """

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """Rows of cells under column headings.

    Attributes:
        columns: the headings.
        rows: one cell for each column.
        caption: a sentence below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


def pairs_table(manifold: Manifold, solution: Solution, names: Sequence[str] | None = None) -> Table:
    """Lengths, error estimates and statuses of each pair beside the length of the straight line.

    A pair that did not converge has no length, and its status says what to do.

    Args:
        manifold: where the curves live, to measure the straight lines on.
        solution: the geodesics.
        names: a name for each pair; numbers if ``None``.

    Raises:
        ShapeError: there is not one name for each pair.

    Cost: 513 points of each straight line.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> manifold = PullbackManifold(torch.nn.Linear(2, 3).double())
        >>> solution = manifold.geodesic(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
        >>> [cell.text for cell in viz.pairs_table(manifold, solution).rows[0]][-1]
        'converged'
    """
    check_manifold("pairs_table", manifold)
    pair_names("pairs_table", solution, names)
    straight = straight_lengths(manifold, solution).tolist()
    length, error = (t.detach().tolist() for t in (solution.length, solution.error_estimate))
    rows = []
    for i, status in enumerate(solution.status):
        good = status.converged
        numbers = (f"{length[i]:.4f}", f"{error[i]:.1g}", _shorter(length[i], straight[i])) if good else ("–", "–", "–")
        rows.append(
            (
                Cell(str(i + 1), "badge"),
                Cell("" if names is None else names[i]),
                Cell(numbers[0], "number"),
                Cell(numbers[1], "number"),
                Cell(f"{straight[i]:.4f}", "number"),
                Cell(numbers[2], "number"),
                Cell(str(int(solution.iterations[i])), "number"),
                Cell("converged" if good else status.value, "good" if good else "bad"),
            )
        )
    columns = ("", "pair", "geodesic", "± error estimate", "straight line", "shorter by", "steps", "status")
    caption = "Lengths are in ambient units: the distance travelled in the decoder's output space."
    return Table(columns, tuple(rows), caption)


def _shorter(length: float, straight: float) -> str:
    return f"{100 * (1 - length / straight):.1f} %" if straight > 0 else "–"
