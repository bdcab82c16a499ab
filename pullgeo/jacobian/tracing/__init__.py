"""Turns the ``forward`` of any module into a graph of Jacobians, by running it on tensors that write down their use.

Why not a symbolic trace: with values at hand shapes are numbers and control flow is plain Python; nothing global is
patched, so that other threads may call modules meanwhile; and a run costs a fraction of a millisecond for each
operation, so that nothing is cached and nothing can be out of date.
"""

from pullgeo.jacobian.tracing import (
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
from pullgeo.jacobian.tracing.calls import Note, Served
from pullgeo.jacobian.tracing.module_proxy import runs_more_than_forward, uncompiled
from pullgeo.jacobian.tracing.proxy import Untraceable
from pullgeo.jacobian.tracing.trace import Recording, record_input, record_weight

__all__ = [
    "Note",
    "Recording",
    "Served",
    "Untraceable",
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
