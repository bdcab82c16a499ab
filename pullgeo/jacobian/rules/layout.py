"""What the layers with spatial axes ask of the layout of a batch."""

from torch import Tensor, nn

from pullgeo.errors import ShapeError


def require_batch(module: nn.Module, x: Tensor, trailing: int) -> None:
    """Raise unless ``x`` has a batch dimension in front of the ``trailing`` ones that the module works on.

    Raises:
        ShapeError: the batch dimension is among those, or there is no room for one.
    """
    if x.ndim <= trailing:
        raise ShapeError(
            f"Jacobian: {module} works on the last {trailing} dimensions, so x needs one more for the batch; got "
            f"shape {tuple(x.shape)}. Use x.unsqueeze(0)."
        )


def require_dims(module: nn.Module, x: Tensor, dims: int) -> None:
    """Raise unless ``x`` has exactly the dimensions of a batch, because the module takes one fewer for a sample.

    Raises:
        ShapeError: another number of dimensions.
    """
    if x.ndim != dims:
        raise ShapeError(
            f"Jacobian: {module} needs x of {dims} dimensions, the batch first; got shape {tuple(x.shape)}. A sample "
            "alone becomes a batch by x.unsqueeze(0)."
        )
