"""Geodesics between many pairs, batch by batch, wherever joblib runs them."""

import numpy as np
import torch
from joblib import delayed
from torch import Tensor

from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.chunking import Budget
from pullgeo.stats.checkpoint import Checkpoint
from pullgeo.stats.tasks import results


def solve_pairs(
    manifold: Manifold,
    solver: Solver | None,
    points: Tensor,
    others: Tensor,
    rows: np.ndarray,
    columns: np.ndarray,
    batch_size: int,
    *,
    where: str,
    progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths, NaN where a pair did not converge, and statuses of the pairs ``points[rows[i]], others[columns[i]]``.

    Batches are the same whatever was found on disk, so that a resumed computation has the same result to the last bit.
    """
    length = np.zeros(len(rows))
    status = np.full(len(rows), Status.CONVERGED, dtype=object)
    batches = list(Budget(batch_size).slices(len(rows)))
    todo = []
    for number, batch in enumerate(batches):
        stored = None if checkpoint is None else checkpoint.load(number, batch.stop - batch.start)
        if stored is None:
            todo.append(number)
        else:
            length[batch], status[batch] = stored
    tasks = (
        delayed(_solve_batch)(
            manifold,
            solver,
            points[rows[batches[number]]].double(),
            others[columns[batches[number]]].double(),
            number,
            checkpoint,
        )
        for number in todo
    )
    sizes = [batches[number].stop - batches[number].start for number in todo]
    try:
        found = results(where, tasks, sizes, unit="pair", progress=progress, done=len(rows) - sum(sizes))
    except KeyboardInterrupt as interrupt:
        if checkpoint is not None:
            interrupt.add_note(checkpoint.kept(batches))
        raise
    for number, (lengths, ends) in zip(todo, found, strict=True):
        length[batches[number]], status[batches[number]] = lengths, ends
    return length, status


def _solve_batch(
    manifold: Manifold, solver: Solver | None, a: Tensor, b: Tensor, number: int, checkpoint: Checkpoint | None
) -> tuple[np.ndarray, np.ndarray]:
    """One batch; equal points are not solved for. The worker keeps what it has found: the caller may not live on."""
    length = np.zeros(len(a))
    status = np.full(len(a), Status.CONVERGED, dtype=object)
    apart = (a != b).any(1)
    if bool(apart.any()):
        with torch.no_grad():
            solution = manifold.geodesic(a[apart], b[apart], solver)
        found = torch.where(solution.converged, solution.length.double(), torch.nan)
        length[apart.numpy(force=True)] = found.numpy(force=True)
        status[apart.numpy(force=True)] = list(solution.status)
    if checkpoint is not None:
        checkpoint.save(number, length, status)
    return length, status
