"""Writes the names of ``pullgeo.nnj`` down for type checkers and editors: ``python docs/nnj_stub.py``.

The classes are made from those of the installed torch when the package is imported, which no type checker can follow.
"""

import ast
from pathlib import Path

ROOM = Path(__file__).parents[1] / "pullgeo" / "nnj"
PAGE = ROOM / "__init__.pyi"

HEAD = '"""The names of `pullgeo.nnj`, made by ``docs/nnj_stub.py`` from torch {version}."""'


MYPY = '# mypy: disable-error-code="misc"'
"""torch's own lazy layers inherit attributes of different types."""


def stub() -> str:
    """The imports of the room, what it takes from torch as it is, and a class for each layer."""
    import torch

    from pullgeo.nnj.torch_layers import LAYERS, OTHERS, PARTS

    tree = ast.parse((ROOM / "__init__.py").read_text(encoding="utf-8"))
    lines = [MYPY, HEAD.format(version=".".join(torch.__version__.split(".")[:2])), "", "import torch.nn as _nn"]
    own: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "pullgeo.nnj.torch_layers"):
            for alias in node.names:
                lines.append(f"from {node.module} import {alias.name} as {alias.name}")
                own.add(alias.name)
    lines += [f"from torch.nn import {name} as {name}" for name in sorted({**OTHERS, **PARTS}) if name not in own]
    for name in sorted(LAYERS):
        if name not in own:
            lines += ["", f"class {name}(Module, _nn.{name}): ..."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(stub(), encoding="utf-8")
