"""The living map in a notebook. Its packages come with ``pullgeo[notebook]``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from plotly.offline import get_plotlyjs

from pullgeo.errors import NonFiniteError, OptionError, PullgeoError, ShapeError
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.classes import Labels, classes_of
from pullgeo.viz.explore.bundle import bundle, front
from pullgeo.viz.explore.exact import Exact, refusal
from pullgeo.viz.explore.payload import Plane, payload_of, slice_of
from pullgeo.viz.explore.slice import Slice

_CSS = ".pg { height: 700px; }"


def _script() -> str:
    # plotly comes along: a notebook may have no network
    return "\n".join([get_plotlyjs(), bundle("hosts/widget.js"), "export default { render };"])


class Explorer(anywidget.AnyWidget):
    """The living map of a latent space, in a notebook, with its state in Python.

    While a pointer drags, the page follows by itself; where it rests, the kernel solves exactly, in all d dimensions.

    Args:
        manifold: the latent space.
        latents: ``(n, d)``.
        labels: the class of each latent, if there are classes.
        plane: what is shown first of more than two dimensions, as for `explore`; others can be chosen on the map.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` of what the decoder returns, seen along the
            geodesic; outputs of such a shape need not be told.
        solver: how geodesics are found exactly; `Newton()` if ``None``.
        title: above the map.

    Attributes:
        z0: where the geodesic begins, a tuple of d numbers. What is set is projected onto the plane that is shown.
        z1: where it ends, likewise.
        selection: rows of the latents that are selected, a tuple.
        curve: the geodesic's nodes, ``(T + 1, d)``: exact once it was solved for, on the plane before; read only.
        status: ``"CONVERGED"``, or the name of how else the search for ``curve`` ended; read only.
        pins: the pairs that were pinned, a list of dictionaries with ``z0`` and ``z1`` on the map, and ``name`` if they
            have one.
        layer: what is shown behind the latents.
        plane: the name of the plane that is shown, as `Slice.named` takes it; setting it draws another one. Empty for
            a plane that was given by its points.

    Raises:
        DataError: anywidget is missing (``pip install "pullgeo[notebook]"``).
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``, or labels, or what an attribute is
            set to, do not fit.
        OptionError: an attribute is set to what it cannot be.

    Cost: that of a page (`explore`), and one solve where a pointer rests.

    Example:
        >>> from pullgeo import PullbackManifold, viz
        >>> z = torch.randn(13, 2)
        >>> explorer = viz.Explorer(PullbackManifold(torch.nn.Linear(2, 3)), z)
        >>> explorer.z0 = z[3]
        >>> explorer.selection = [2, 5]
        >>> explorer.selection
        (2, 5)
    """

    z0 = traitlets.Any(None, help="where the geodesic begins")
    z1 = traitlets.Any(None, help="where it ends")
    curve = traitlets.Any(None, read_only=True, help="its nodes")
    status = traitlets.Unicode("", read_only=True, help="how the search for it ended")
    selection = traitlets.Any((), help="rows of latents").tag(sync=True, to_json=lambda rows, _: list(rows))
    pins = traitlets.Any([], help="pairs that were pinned").tag(sync=True)
    layer = traitlets.Unicode("", help="what is shown behind the latents").tag(sync=True)

    plane = traitlets.Unicode("", help="the plane that is shown")

    _payload = traitlets.Dict({}).tag(sync=True)
    _a = traitlets.Any(None).tag(sync=True)
    _b = traitlets.Any(None).tag(sync=True)
    _curve = traitlets.Any(None).tag(sync=True)

    def __init__(
        self,
        manifold: Manifold,
        latents: Points,
        labels: Labels | None = None,
        *,
        plane: Plane = None,
        image_shape: tuple[int, ...] | None = None,
        solver: Solver | None = None,
        title: str = "Latent geometry",
    ) -> None:
        where = "Explorer"
        check_manifold(where, manifold)
        z = as_points(where, latents)
        if labels is not None:
            classes_of(where, labels, len(z))
        self._plane = slice_of(z.double().cpu(), plane)
        self._draw = partial(payload_of, manifold, z, labels, image_shape=image_shape, title=title)
        self._exact = Exact(manifold, self._plane, z, solver or Newton(), self._show)
        payload = self._draw(plane=self._plane)
        self._esm, self._css = _script(), f"{front('explore.css')}\n{_CSS}"
        super().__init__(_payload=payload, plane=self._plane.name or "")
        self.on_msg(self._answer)

    @traitlets.validate("plane")
    def _check_plane(self, proposal: Any) -> str:
        name = proposal["value"]
        if name == (self._plane.name or ""):
            return name
        plane = Slice.named(self._exact.latents, name)
        payload = self._draw(plane=plane)
        self.pins, self.selection = [], ()
        self.z0 = self.z1 = None
        self._plane, self._payload = plane, payload
        return plane.name or ""

    def _show(self, plane: Slice) -> None:
        """A plane that was chosen on the map; all views of the widget get it."""
        self.plane = plane.name or ""

    @traitlets.validate("z0", "z1")
    def _check_end(self, proposal: Any) -> tuple[float, ...] | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        point = _numbers(f"Explorer.{name}", value, len(self._plane.origin))
        # what the map shows
        flat = torch.from_numpy(self._plane.project(torch.from_numpy(point)))
        return tuple(self._plane.lift(flat).tolist())

    @traitlets.validate("_a", "_b")
    def _check_place(self, proposal: Any) -> list[float] | None:
        value = proposal["value"]
        return None if value is None else _numbers("Explorer", value, 2).tolist()

    @traitlets.validate("selection")
    def _check_selection(self, proposal: Any) -> tuple[int, ...]:
        value, n = proposal["value"], len(self._exact.latents)
        try:
            rows = np.asarray(value if hasattr(value, "__len__") else list(value))
        except (TypeError, ValueError):
            rows = np.asarray(None)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise OptionError(f"Explorer.selection: expected a list of rows of the latents, got {value!r:.80}.")
        outside = rows[(rows < 0) | (rows >= n)] if rows.size else rows
        if outside.size:
            raise OptionError(f"Explorer.selection: rows must lie between 0 and {n - 1}, got {outside[0]}.")
        return tuple(dict.fromkeys(rows.astype(int).tolist()))

    @traitlets.validate("pins")
    def _check_pins(self, proposal: Any) -> list[dict[str, Any]]:
        value = proposal["value"]
        if not isinstance(value, list | tuple) or not all(isinstance(pin, dict) for pin in value):
            raise OptionError(f"Explorer.pins: expected a list of dictionaries with z0 and z1, got {value!r:.80}.")
        pins = []
        for i, pin in enumerate(value):
            if not {"z0", "z1"} <= set(pin) or not isinstance(pin.get("name", ""), str):
                raise OptionError(f"Explorer.pins: entry {i} needs z0 and z1, and its name must be text: {pin!r:.80}.")
            ends = {
                name: _numbers(f"Explorer.pins: {name} of entry {i}", pin[name], 2).tolist() for name in ("z0", "z1")
            }
            pins.append({**pin, **ends})
        return pins

    @traitlets.observe("z0", "z1")
    def _end_moved(self, change: Any) -> None:
        flat = None if change["new"] is None else self._plane.project(torch.tensor(change["new"], dtype=torch.float64))
        place, name = (None if flat is None else flat.tolist()), {"z0": "_a", "z1": "_b"}[change["name"]]
        old = getattr(self, name)
        # what came from the map goes back to it unchanged
        if place is None or old is None or not np.allclose(place, old, rtol=1e-9, atol=1e-12):
            setattr(self, name, place)

    @traitlets.observe("_a", "_b")
    def _place_moved(self, change: Any) -> None:
        if change["new"] is None:
            return
        point = tuple(self._plane.lift(torch.tensor(change["new"], dtype=torch.float64)).tolist())
        name = {"_a": "z0", "_b": "z1"}[change["name"]]
        if getattr(self, name) is None or not np.allclose(point, getattr(self, name), rtol=1e-9, atol=1e-12):
            setattr(self, name, point)

    @traitlets.observe("_curve")
    def _curve_moved(self, change: Any) -> None:
        new = change["new"] or {}
        full, nodes = new.get("full"), new.get("nodes")
        if full:
            self.set_trait("curve", np.array(full, dtype=np.float64))
        elif nodes:
            flat = torch.tensor(np.array(nodes, dtype=np.float64).reshape(-1, 2))
            self.set_trait("curve", self._plane.lift(flat).numpy())
        self.set_trait("status", str(new.get("status", "")))

    def _answer(self, widget: Any, content: Any, buffers: Sequence[Any]) -> None:
        """A question of the map's."""
        if not isinstance(content, dict) or not isinstance(content.get("id"), str):
            return
        try:
            answer = self._exact.task(content.get("question"))()
        except PullgeoError as error:
            answer = refusal(error)
        self.send({"id": content["id"], "answer": answer})


def _numbers(where: str, value: Any, count: int) -> np.ndarray:
    given = value.numpy(force=True) if isinstance(value, torch.Tensor) else value
    try:
        point = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{where} must be {count} numbers, got {value!r:.80}.") from error
    if point.shape != (count,):
        raise ShapeError(f"{where} must have shape ({count},), got {point.shape}.")
    if not np.isfinite(point).all():
        raise NonFiniteError(f"{where} holds NaN or infinity: {point.tolist()}.")
    return point
