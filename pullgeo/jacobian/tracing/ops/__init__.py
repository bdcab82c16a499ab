"""What each torch function does to a recorded value, one family of functions a file; importing it registers them."""

from pullgeo.jacobian.tracing.ops import (
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

__all__ = [
    "arithmetic",
    "attention",
    "elementwise",
    "functional",
    "indexing",
    "normalization",
    "products",
    "reductions",
    "reshaping",
]
