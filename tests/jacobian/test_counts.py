"""How much is computed for a metric: operations of torch, which do not depend on the machine, as upper bounds."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

BOUNDS = {}


class Counting(TorchDispatchMode):
    """Counts the operations of torch that run in its context, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(run: Any) -> int:
    with torch.no_grad():
        run()  # what happens once does not count
        with Counting() as counting:
            run()
    return counting.count
