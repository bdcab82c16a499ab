"""Turns the ``forward`` of any module into a graph of Jacobians, by running it on tensors that write down their use.

Why not a symbolic trace: values at hand make shapes numbers and control flow plain Python, nothing global is patched
so that other threads may call modules meanwhile, and a run costs microseconds for each operation, so that there is
nothing to cache and nothing that could be out of date.
"""

from pullgeo.jacobian.recording import (
    arithmetic,
    attention,
    elementwise,
    functional,
    indexing,
    normalization,
    products,
    reductions,
    reshaping,
)
from pullgeo.jacobian.recording.calls import Note, Served
from pullgeo.jacobian.recording.record import Recording, record_input, record_weight
from pullgeo.jacobian.recording.recorded import Unserved
from pullgeo.jacobian.recording.shadow import runs_more_than_forward, uncompiled

__all__ = [
    "Note",
    "Recording",
    "Served",
    "Unserved",
    "arithmetic",
    "attention",
    "elementwise",
    "functional",
    "indexing",
    "normalization",
    "products",
    "record_input",
    "record_weight",
    "reductions",
    "reshaping",
    "runs_more_than_forward",
    "uncompiled",
]
