"""Writes the table of all classes of torch.nn and what serves them: ``python docs/coverage.py``."""

import csv
import inspect
import io
import warnings
from pathlib import Path

import torch
from torch import nn

from pullgeo.jacobian import Jacobian, explain, linearize
from pullgeo.testing import TorchLayer, torch_layers, why_no_layer

PAGE = Path(__file__).with_name("coverage.rst")
VERSION = ".".join(torch.__version__.split(".")[:2])
HEADER = ("Class", "Path", "Kind, input", "Kind, weights", "Products", "Structures", "Squared entries")
TEXT = """Every class of torch.nn
=======================

Made by ``docs/coverage.py`` from torch {version}: {layers} layers, and {others} classes that are not layers. Each layer is
linearised as it stands in `pullgeo.testing.torch_layers`, and a test compares every product of every one of them with
an independent truth.

* *Path*: a *rule* is the layer's formula; a *graph* consists of its operations, each of which has a formula; *autodiff*
  is automatic differentiation with the tangents leading. All are exact.
* *Kind*: the type of `pullgeo.jacobian` that stands for the Jacobian. Rules depend on settings, so that other settings
  may have another kind.
* *Products*: 7 are ``jacobian``, ``jvp``, ``vjp``, ``jmp``, ``mjp``, ``jmjTp`` and ``jTmjp``, times 2 with respect to
  input and weights.
* *Structures*: 4 are a whole matrix or its diagonal, in and out.
* *Squared entries*: how diagonals are mapped exactly. *Formula* is one pass; *passes* are as many as there are inputs
  or outputs, whichever are fewer, and no matrix is formed.

.. csv-table::
   :header-rows: 1
   :widths: auto

"""


def classes() -> list[str]:
    """The names of all module classes that torch.nn exports."""
    return sorted(name for name, cls in vars(nn).items() if inspect.isclass(cls) and issubclass(cls, nn.Module))


def row(name: str, layer: TorchLayer | None) -> tuple[str, ...]:
    """What serves a class."""
    if layer is None:
        return (name, f"none: {why_no_layer(name)}", *["—"] * 5)
    module, x = layer.module(), layer.points(3)
    weighted = any(True for _ in module.parameters())
    table = explain(module, x, "weight" if layer.rows else "input")
    path = table["layer" if layer.call is not None else ""].path
    J = None if layer.rows else linearize(module, x)[1]
    weight = linearize(module, x, "weight")[1] if weighted else None
    count = 7 * ((J is not None) + weighted)
    refused = "refused: indices have no derivative"
    return (
        name,
        path,
        refused if J is None else type(J).__name__,
        "—" if weight is None else _weight_kind(weight),
        str(count),
        "4",
        "—" if J is None else "passes" if type(J).push_squared is Jacobian.push_squared else "formula",
    )


def _weight_kind(J: Jacobian) -> str:
    kinds = dict.fromkeys(type(own.J).__name__ for own in (stage.own for stage in J.stages) if own is not None)
    return ", ".join(kinds)


def page() -> str:
    """The text of the page."""
    layers = torch_layers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [row(name, layers.get(name)) for name in classes()]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([HEADER, *rows])
    text = TEXT.format(version=VERSION, layers=len(layers), others=len(rows) - len(layers))
    return text + "".join(f"   {line}\n" for line in table.getvalue().splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
