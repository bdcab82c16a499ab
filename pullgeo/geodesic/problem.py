"""The boundary value problem: two points of a manifold, and the shortest curve between them to be found."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullgeo._torch.grad_mode import check_grad_mode, check_transforms
from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import DtypeError, NonFiniteError, ShapeError
from pullgeo.geodesic.energy.base import ManifoldEnergy


@dataclass(frozen=True, eq=False)
class BoundaryValue:
    """Pairs of end points, ``(b, d)`` or ``(d,)``, which broadcast.

    Raises:
        ShapeError: the end points do not broadcast to ``(b, d)``.
        DtypeError: they are not floating point, or not of the same dtype.
        NonFiniteError: a coordinate is NaN or infinite.
        GradModeError: ``torch.inference_mode()`` is on, or a transform of ``torch.func``, in which no geodesic can be
            found; or an end point has a tangent of forward mode.
    """

    manifold: ManifoldEnergy
    z0: Tensor
    z1: Tensor

    def __post_init__(self) -> None:
        check_grad_mode("BoundaryValue")
        for name, z in (("z0", self.z0), ("z1", self.z1)):
            if not isinstance(z, Tensor) or not z.is_floating_point():
                got = z.dtype if isinstance(z, Tensor) else type(z).__name__
                raise DtypeError(f"BoundaryValue: {name} must be a floating point tensor, got {got}. Use z.float().")
        check_transforms("BoundaryValue", self.z0, self.z1)
        shapes = f"z0 {tuple(self.z0.shape)} and z1 {tuple(self.z1.shape)}"
        if self.z0.dtype != self.z1.dtype:
            raise DtypeError(f"BoundaryValue: z0 is {self.z0.dtype} and z1 is {self.z1.dtype}; make them the same.")
        try:
            z0, z1 = torch.broadcast_tensors(outside_inference(self.z0), outside_inference(self.z1))
        except RuntimeError as error:
            raise ShapeError(f"BoundaryValue: {shapes} do not broadcast. Give (b, d) or (d,) each.") from error
        if z0.ndim not in (1, 2) or self.z0.shape[-1] != self.z1.shape[-1]:
            raise ShapeError(f"BoundaryValue: expected end points (b, d) or (d,), got {shapes}.")
        z0, z1 = (z if z.ndim == 2 else z.unsqueeze(0) for z in (z0, z1))
        bad = ~(torch.isfinite(z0) & torch.isfinite(z1)).all(1)
        if bool(bad.any()):
            raise NonFiniteError(
                f"BoundaryValue: {int(bad.sum())} of {len(z0)} pairs hold NaN or infinity, the first at index "
                f"{int(bad.nonzero()[0])}. Drop them, or fix what produced them."
            )
        object.__setattr__(self, "z0", z0)
        object.__setattr__(self, "z1", z1)
