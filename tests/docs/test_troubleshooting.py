"""docs/troubleshooting.rst knows every status and every error, and quotes what is really raised."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, errors
from pullgeo.cli.load import load_array
from pullgeo.geodesic import Status
from pullgeo.jacobian import rule
from pullgeo.likelihood import Categorical
from pullgeo.stats import Finding, Verdict

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
NAMED = [
    value
    for value in vars(errors).values()
    if isinstance(value, type)
    and issubclass(value, Exception)
    and value.__module__ == errors.__name__
    and value is not errors.SamplesError  # the base of two of them
]


def entry(name: str) -> str:
    """What stands below a term of the page, on one line."""
    found = re.search(rf"^``{name}``.*\n((?:(?:   .*)?\n)+)", PAGE, re.MULTILINE)
    assert found is not None, f"{name} has no entry"
    return " ".join(found[1].split())


@pytest.mark.parametrize("status", Status, ids=lambda status: status.name)
def test_every_status_has_an_entry(status: Status) -> None:
    assert len(entry(status.name)) > 30
    good = PAGE.index("Good ends") < PAGE.index(f"\n``{status.name}``\n") < PAGE.index("No geodesic found")
    assert good == status.converged


@pytest.mark.parametrize("error", NAMED, ids=lambda error: error.__name__)
def test_every_error_has_an_entry(error: type[Exception]) -> None:
    if error is errors.PullgeoError:
        assert "`pullgeo.errors.PullgeoError`" in PAGE
        return
    built_in = next(base for base in error.__mro__ if base.__module__ == "builtins")
    said = "a warning" if issubclass(error, Warning) else built_in.__name__
    assert re.search(rf"^``{error.__name__}`` \(.*{said}.*\)$", PAGE, re.MULTILINE)
    assert len(entry(error.__name__)) > 60


def test_the_other_results_are_named() -> None:
    assert Finding.__name__ in PAGE
    assert f"``{Verdict.NOT_SOLVED.name}``" in PAGE


class Two(nn.Module):
    def forward(self, z: Tensor) -> Any:
        return z, z


class Casting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z.float())


def in_inference_mode() -> None:
    with torch.inference_mode():
        PullbackManifold(nn.Linear(2, 3)).dist(Z, Z)


Z = torch.zeros(3, 2)
KINKED = (nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 7))
CASES: list[tuple[type[Exception], Callable[[], Any]]] = [
    (errors.ShapeError, lambda: PullbackManifold(nn.Linear(2, 3)).geodesic(Z, torch.ones(4, 2))),
    (errors.DtypeError, lambda: PullbackManifold(Casting()).geodesic(Z, Z + 1)),
    (errors.OptionError, lambda: PullbackManifold(nn.Linear(2, 3)).geodesic(Z, Z, Newton)),  # type: ignore[arg-type]
    (errors.NonFiniteError, lambda: PullbackManifold(torch.log).metric(Z - 1).dense()),
    (errors.SingularMetricError, lambda: PullbackManifold(lambda z: z * z.new_tensor([1, 0])).christoffel(Z)),
    (
        errors.CoupledSamplesError,
        lambda: PullbackManifold(nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5))).metric(Z).dense(),
    ),
    (errors.ModuleError, lambda: PullbackManifold(Two()).metric(Z).dense()),
    (errors.GradModeError, in_inference_mode),
    (errors.RegistryError, lambda: rule(nn.ReLU)(lambda module, x: (x, x))),  # type: ignore[arg-type, return-value]
    (errors.DataError, lambda: load_array("--latents", Path("z.npy"))),
    (errors.GeometryError, lambda: PullbackManifold(nn.Sequential(*KINKED)).expmap(Z, torch.ones(3, 2))),
    (errors.TargetError, lambda: Categorical().nll(torch.zeros(3, 4), torch.tensor([0, 1, 4]))),
    (
        errors.OffManifoldError,
        lambda: PullbackManifold(nn.Linear(2, 3), ambient=geoopt.Sphere()).metric(Z).dense(),
    ),
]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(("error", "call"), CASES, ids=lambda case: getattr(case, "__name__", "call"))
def test_what_is_quoted_is_what_is_raised(
    error: type[Exception], call: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        call()
    quoted = re.search(r"``(.+?)``", entry(error.__name__))
    assert quoted is not None
    assert quoted[1] in " ".join(str(raised.value).split())
