"""Where torch cannot give the derivatives that geometry is made of."""

import torch

from pullgeo.errors import GradModeError


def check_grad_mode(where: str) -> None:
    """Raise where reverse mode records nothing: derivatives would come out as zero.

    Raises:
        GradModeError: ``torch.inference_mode()`` is on.
    """
    if torch.is_inference_mode_enabled():
        raise GradModeError(
            f"{where}: torch.inference_mode() is on, in which torch takes no derivatives, and geometry is made of "
            "them. Use torch.no_grad(): nothing is kept for a backward pass then either."
        )
