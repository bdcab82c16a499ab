"""Draws the pictures of docs/primer.rst: ``python docs/primer_figures.py`` writes docs/primer/*.svg.

All of them are drawn from what the library computes, most on the digits decoder that comes with the package. They are
committed, as building the pages should not need a model.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullgeo import PullbackManifold, datasets, zoo
from pullgeo.curve import DiscreteCurve
from pullgeo.viz.png import data_uri
from pullgeo.viz.style import CLASS_COLOURS, DENSITY_SCALE, FONT, HAIRLINE, INK, MUTED, PAPER

FOLDER = Path(__file__).with_name("primer")
GEODESIC, LINE = "#0072b2", "#d55e00"
RADIUS_KM = 6371.0


class Drawing:
    """An SVG of a given size, in pixels from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.parts = [f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}"/>']

    def path(self, xy: np.ndarray, colour: str, width: float = 1.0, more: str = "") -> None:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in xy)
        self.parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" {more}/>')

    def shape(self, xy: np.ndarray, colour: str, fill: str = "none", width: float = 1.0) -> None:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in xy)
        self.parts.append(f'<polygon points="{points}" fill="{fill}" stroke="{colour}" stroke-width="{width}"/>')

    def dots(self, xy: np.ndarray, radius: float, colours: Sequence[str] | str, more: str = "") -> None:
        each = [colours] * len(xy) if isinstance(colours, str) else colours
        for (x, y), colour in zip(xy, each, strict=True):
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" {more}/>')

    def arrow(self, start: np.ndarray, end: np.ndarray, colour: str) -> None:
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array([-along[1], along[0]])
        self.path(np.stack([start, end - 5 * along]), colour, 2.5)
        self.shape(np.stack([end, end - 9 * along + 5 * across, end - 9 * along - 5 * across]), colour, colour)

    def text(self, x: float, y: float, words: str, colour: str = INK, size: int = 13, anchor: str = "start") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{words}</text>'
        )

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray, smooth: bool = False) -> None:
        style = "" if smooth else ' style="image-rendering:pixelated"'
        self.parts.append(
            f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none"'
            f'{style} href="{data_uri(pixels)}"/>'
        )

    def svg(self) -> str:
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="{FONT.replace(chr(34), chr(39))}">\n{body}\n</svg>\n'
        )


class Plane:
    """A rectangle of the latent space in a square of a drawing, the second coordinate upwards."""

    def __init__(self, drawing: Drawing, x: float, y: float, side: float, z: Tensor) -> None:
        low, high = z.amin(0), z.amax(0)
        half = float((high - low).max()) * 0.54
        middle = (low + high) / 2
        self.low, self.size = (middle - half).numpy(), 2 * half
        self.drawing, self.x, self.y, self.side = drawing, x, y, side
        drawing.shape(np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]]), HAIRLINE)

    def __call__(self, z: Tensor) -> np.ndarray:
        unit = (z.detach().double().numpy() - self.low) / self.size
        return np.stack([self.x + self.side * unit[..., 0], self.y + self.side * (1 - unit[..., 1])], -1)

    def lattice(self, n: int) -> Tensor:
        """Centres of n x n squares, from the upper left one row by row."""
        steps = (torch.arange(n) + 0.5) / n * self.size
        x, y = torch.from_numpy(self.low).float()[:, None] + steps
        return torch.stack(torch.meshgrid(y.flip(0), x, indexing="ij")[::-1], -1).reshape(-1, 2)

    def inside(self, z: Tensor) -> np.ndarray:
        xy = self(z)
        return ((xy > [self.x, self.y]) & (xy < [self.x + self.side, self.y + self.side])).all(-1)


class Digits:
    """The trained decoder of digits and the latents of its data."""

    def __init__(self) -> None:
        data = datasets.digits()
        self.vae, self.labels = zoo.digits_vae(), data.labels
        self.z = self.vae.encode(data.images).detach()
        self.manifold = PullbackManifold(self.vae.decoder)
        self.colours = [CLASS_COLOURS[k] for k in self.labels.tolist()]

    def picture(self, z: Tensor) -> np.ndarray:
        return grey(self.decode(z[None])[0])

    def decode(self, z: Tensor) -> Tensor:
        return self.manifold.decode(z).detach().reshape(len(z), 8, 8)

    def scatter(self, plane: Plane, every: int = 3, opacity: float = 0.5) -> None:
        plane.drawing.dots(plane(self.z[::every]), 2, self.colours[::every], f'fill-opacity="{opacity}"')


def grey(image: Tensor) -> np.ndarray:
    """Pixels in [0, 1], 1 dark."""
    return (255 * (1 - image.clamp(0, 1))).round().byte().numpy()[..., None]


def signed(image: Tensor) -> np.ndarray:
    """Differences in [-1, 1]: blue what appears, orange what vanishes."""
    colours = torch.tensor([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (GEODESIC, LINE)]).double()
    share = image.double().abs().clamp(0, 1)[..., None]
    end = torch.where(image[..., None] > 0, colours[0], colours[1])
    return (255 + share * (end - 255)).round().byte().numpy()


def shaded(values: np.ndarray) -> np.ndarray:
    """A square of numbers in [0, 1] in the colours of the library's maps."""
    scale = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in DENSITY_SCALE], float)
    at = np.clip(values, 0, 1) * (len(scale) - 1)
    channels = [np.interp(at, np.arange(len(scale)), scale[:, k]) for k in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def earth() -> str:
    """The shortest way between two towns on a map and on the globe."""
    towns = torch.tensor([[8.6, 50.0], [-122.4, 37.6]], dtype=torch.float64) * math.pi / 180

    def globe(place: Tensor) -> Tensor:
        longitude, latitude = place.unbind(1)
        flat = latitude.cos()
        return RADIUS_KM * torch.stack([flat * longitude.cos(), flat * longitude.sin(), latitude.sin()], 1)

    manifold = PullbackManifold(globe)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    solution = manifold.geodesic(towns[:1], towns[1:])
    shortest = solution.curve(t)[0]
    straight = towns[0] + t[:, None] * (towns[1] - towns[0])
    over = float(DiscreteCurve(straight[None]).length(manifold)[0])

    drawing = Drawing(720, 330)
    left, top, wide, high = 20.0, 40.0, 380.0, 240.0
    west, east, south, north = -140.0, 25.0, 0.0, 85.0

    def chart(place: Tensor) -> np.ndarray:
        lon, lat = (place * 180 / math.pi).numpy().T
        return np.stack([left + wide * (lon - west) / (east - west), top + high * (north - lat) / (north - south)], 1)

    def seen(place: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """On the globe as it is seen from above the North Atlantic, and what of it is in front."""
        p = (globe(place) / RADIUS_KM).numpy()
        lon, lat = math.radians(-58), math.radians(48)
        right = np.array([-math.sin(lon), math.cos(lon), 0])
        front = np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])
        up = np.cross(front, right)
        return np.stack([565 + 120 * p @ right, 160 - 120 * p @ up], 1), p @ front > 0

    corners = torch.tensor([[west, south], [east, south], [east, north], [west, north]], dtype=torch.float64)
    drawing.shape(chart(corners * math.pi / 180), HAIRLINE)
    angles = torch.linspace(-180, 180, 181, dtype=torch.float64)
    drawing.dots(np.array([[565.0, 160.0]]), 120, "#f4f6f8")
    lines = [torch.stack([angles, torch.full_like(angles, lat)], 1) for lat in range(-60, 90, 15)]
    lines += [torch.stack([torch.full_like(angles, lon), angles / 2], 1) for lon in range(-180, 180, 15)]
    for line in lines:
        lon, lat = line.T
        within = line[(lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)]
        if len(within) > 1:
            drawing.path(chart(within * math.pi / 180), HAIRLINE, 0.7)
        xy, front = seen(line * math.pi / 180)
        for run in np.split(np.arange(len(xy)), np.flatnonzero(np.diff(front.astype(int))) + 1):
            if front[run[0]] and len(run) > 1:
                drawing.path(xy[run], HAIRLINE, 0.7)
    for curve, colour in ((straight, LINE), (shortest, GEODESIC)):
        drawing.path(chart(curve), colour, 2.5)
        drawing.path(seen(curve)[0], colour, 2.5)
    drawing.dots(chart(towns), 4, INK)
    drawing.dots(seen(towns)[0], 4, INK)
    drawing.text(left, 27, "on the map", MUTED)
    drawing.text(565, 27, "on the globe", MUTED, anchor="middle")
    drawing.text(left, 312, f"straight on the map: {over:,.0f} km", LINE)
    drawing.text(left + 250, 312, f"shortest on the globe: {float(solution.length[0]):,.0f} km", GEODESIC)
    return drawing.svg()


def steps(digits: Digits) -> str:
    """The same step at two latents, and what it changes."""
    step = torch.tensor([0.35, 0.0])
    tangents = step.expand_as(digits.z)
    change = (digits.manifold.decode(digits.z + step) - digits.manifold.decode(digits.z)).norm(dim=1)
    predicted = digits.manifold.norm(digits.z, tangents)
    crowded = torch.cdist(digits.z, digits.z).kthvalue(20, dim=1).values < 0.45
    near = ((predicted - change).abs() < 0.1 * change) & crowded
    order = torch.argsort(torch.where(near, predicted, predicted.median()))
    chosen = [int(order[2]), int(order[-3])]

    drawing = Drawing(720, 330)
    plane = Plane(drawing, 20, 20, 290, digits.z)
    digits.scatter(plane)
    for row, (index, name) in enumerate(zip(chosen, "AB", strict=True)):
        z = digits.z[index]
        start, end = plane(z), plane(z + step)
        drawing.arrow(start, end, INK)
        drawing.text(start[0] - 7, start[1] + 5, name, anchor="end")
        y = 55 + 140 * row
        before, after = digits.decode(torch.stack([z, z + step]))
        for column, pixels in enumerate((grey(before), grey(after), signed(after - before))):
            x = 370 + 110 * column
            drawing.image(x, y, 80, 80, pixels)
            drawing.shape(np.array([[x, y], [x + 80, y], [x + 80, y + 80], [x, y + 80]]), HAIRLINE)
        words = f"{name}: it changes by {float(change[index]):.2f}; the metric says {float(predicted[index]):.2f}"
        drawing.text(370, y + 100, words)
    for column, words in enumerate(("before", "after", "difference")):
        drawing.text(410 + 110 * column, 42, words, MUTED, anchor="middle")
    return drawing.svg()


def balls(digits: Digits) -> str:
    """Ellipses of equal change."""
    drawing = Drawing(720, 380)
    plane = Plane(drawing, 20, 20, 340, digits.z)
    digits.scatter(plane, opacity=0.35)
    points = plane.lattice(11)
    near = torch.cdist(points, digits.z).amin(1) < 0.3
    points = points[near]
    G = digits.manifold.metric(points).dense().detach().double()
    values, vectors = torch.linalg.eigh(G)
    angle = torch.linspace(0, 2 * math.pi, 41, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()])
    ellipses = (vectors * (0.2 / values.sqrt())[:, None]) @ circle
    for point, ellipse in zip(points, ellipses, strict=True):
        if plane.inside(point + ellipse.T).all():
            drawing.shape(plane(point + ellipse.T), INK, "#ffffff66", 1.2)
    x = 390
    for row, words in enumerate(
        (
            "Each ellipse holds the steps that change",
            "the picture by the same amount.",
            "",
            "Small: a little step changes much.",
            "Large: the decoder hardly reacts.",
            "Long and thin: it depends on the direction.",
        )
    ):
        drawing.text(x, 90 + 24 * row, words)
    for k, colour in enumerate(CLASS_COLOURS):
        drawing.dots(np.array([[x + 6 + 30.0 * k, 290.0]]), 5, colour)
        drawing.text(x + 6 + 30 * k, 312, str(k), MUTED, 12, "middle")
    drawing.text(x, 272, "digit", MUTED, 12)
    return drawing.svg()


def geodesic(digits: Digits) -> str:
    """A geodesic and the straight line on the map of volume, and what is decoded along both."""
    generator = torch.Generator().manual_seed(0)
    i, j = torch.randint(len(digits.z), (2, 200), generator=generator)
    solution = digits.manifold.geodesic(digits.z[i], digits.z[j])
    t = torch.linspace(0, 1, 65)
    line = digits.z[i, None] + t[:, None] * (digits.z[j] - digits.z[i])[:, None]
    straight = DiscreteCurve(line).length(digits.manifold).detach()
    length = solution.length.detach()
    apart = (digits.labels[i] != digits.labels[j]) & solution.converged & (length > 2)
    best = int(torch.where(apart, straight / length, 0.0).argmax())
    curve = solution.curve(t)[best].detach()

    drawing = Drawing(720, 470)
    plane = Plane(drawing, 20, 20, 300, digits.z)
    volume = digits.manifold.log_volume(plane.lattice(90)).detach().reshape(90, 90).numpy()
    low, high = np.quantile(volume, [0.02, 0.98])
    drawing.image(20, 20, 300, 300, shaded((volume - low) / (high - low)), smooth=True)
    digits.scatter(plane, every=6, opacity=0.6)
    drawing.path(plane(line[best]), LINE, 3)
    drawing.path(plane(curve), GEODESIC, 3)
    ends = plane(curve[[0, -1]])
    drawing.dots(ends, 5, INK)
    for (x, y), name in zip(ends, "AB", strict=True):
        drawing.text(x + 8, y - 6, name, size=15)
    drawing.text(345, 45, "dark: one step of latents changes much")
    drawing.text(345, 67, "light: it changes little", MUTED)
    profile(drawing, digits, curve, line[best])
    rows = ((curve, GEODESIC, "geodesic", length), (line[best], LINE, "straight line", straight))
    for row, (path, colour, name, total) in enumerate(rows):
        y = 340 + 62 * row
        for column, picture in enumerate(digits.decode(path[::8])):
            drawing.image(150 + 62 * column, y, 54, 54, grey(picture))
        drawing.text(20, y + 24, name, colour)
        drawing.text(20, y + 43, f"length {float(total[best]):.2f}", colour)
    return drawing.svg()


def profile(drawing: Drawing, digits: Digits, curve: Tensor, line: Tensor) -> None:
    """How much has changed on the way, of both curves."""
    left, bottom, wide, high = 365.0, 295.0, 320.0, 190.0
    sums = []
    for path in (curve, line):
        pieces = digits.manifold.decode(path).detach().flatten(1).diff(dim=0).norm(dim=1)
        sums.append(torch.cat([pieces.new_zeros(1), pieces.cumsum(0)]).numpy())
    most = max(total[-1] for total in sums)
    drawing.path(np.array([[left, bottom - high], [left, bottom], [left + wide, bottom]]), MUTED)
    for total, colour in zip(sums, (GEODESIC, LINE), strict=True):
        at = np.linspace(0, 1, len(total))
        drawing.path(np.stack([left + wide * at, bottom - high * total / most], 1), colour, 2.5)
    drawing.text(left, bottom + 18, "A", MUTED, 12)
    drawing.text(left + wide, bottom + 18, "B", MUTED, 12, "end")
    drawing.text(left + wide / 2, bottom + 18, "time", MUTED, 12, "middle")
    drawing.text(left + 6, bottom - high + 4, "change of the picture so far", MUTED, 12)


def rings(digits: Digits) -> str:
    """Circles of the latent space, and circles as the metric measures them."""
    centre = digits.z[digits.labels == 6].mean(0)
    angle = torch.linspace(0, 2 * math.pi, 73)[:-1]
    directions = torch.stack([angle.cos(), angle.sin()], 1)
    unit = directions / digits.manifold.norm(centre.expand_as(directions), directions, keepdim=True)
    reach = torch.linspace(0.4, 1.6, 4)
    radii = torch.linspace(0, 1.6, 17)[1:]
    start = centre.expand(len(radii) * len(unit), 2)
    ends = digits.manifold.expmap(start, (radii[:, None, None] * unit).reshape(-1, 2)).detach()
    rays = torch.cat([centre.expand(1, len(unit), 2), ends.reshape(len(radii), len(unit), 2)])

    drawing = Drawing(720, 390)
    for x, name in ((20, "distance in the latent space"), (370, "distance as the metric measures it")):
        plane = Plane(drawing, x, 35, 330, digits.z)
        digits.scatter(plane, opacity=0.35)
        drawing.text(x, 24, name, MUTED)
        flat = x == 20
        if not flat:
            for ray in rays.transpose(0, 1)[::3]:
                drawing.path(plane(ray)[plane.inside(ray)], GEODESIC, 0.8)
        for r in reach.tolist():
            k = int((radii - r).abs().argmin()) + 1
            ring = centre + 0.62 * r * directions if flat else rays[k]
            drawing.shape(plane(ring), LINE if flat else GEODESIC, width=2)
        drawing.dots(plane(centre[None]), 5, INK)
    return drawing.svg()


def pictures() -> dict[str, str]:
    """All of them, by their names."""
    digits = Digits()
    drawn: dict[str, Callable[[Digits], str]] = {"steps": steps, "balls": balls, "geodesic": geodesic, "rings": rings}
    return {"earth": earth(), **{name: draw(digits) for name, draw in drawn.items()}}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(f"{name}: {len(svg) / 1000:.0f} kB")
