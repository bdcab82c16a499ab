"""Options that several solvers have."""

from pullgeo.errors import OptionError
from pullgeo.geodesic.starts.base import Start


def check_search(where: str, tol: float, segments: int, max_steps: int, starts: tuple[Start, ...]) -> None:
    """Raise `OptionError` unless the options of an iteration over curves are in their ranges."""
    if not 0 < tol < 1:
        raise OptionError(f"{where}: tol must lie between 0 and 1, got {tol}.")
    if segments < 2 or segments % 2:
        raise OptionError(f"{where}: segments must be even and at least 2, got {segments}.")
    if max_steps < 1:
        raise OptionError(f"{where}: max_steps must be at least 1, got {max_steps}.")
    if not starts:
        raise OptionError(f"{where}: starts must name at least one way to begin, such as (StraightLine(),).")
