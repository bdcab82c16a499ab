"""What a user names on the command line, loaded: arrays in files and decoders in modules."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pullgeo.errors import DataError, ModuleError, OptionError, PullgeoError
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.typing import Decoder

Result = TypeVar("Result")


def load_array(option: str, path: Path) -> np.ndarray:
    """The array in an ``.npy`` file; pickled objects, which could run code, are refused.

    Raises:
        DataError: the file cannot be read as one array of numbers or strings.
    """
    expected = f"{option}: expected an array written by numpy.save in {path}"
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{expected}, got no such file. Check the path.") from error
    except OSError as error:
        raise DataError(f"{expected}, got: {error.strerror or error}. Check the path.") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{expected}, got: {error}. Write it with numpy.save(path, array).") from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise DataError(f"{expected}, got an archive of several ({', '.join(found.files)}). Save the one array alone.")
    return found


def load_decoder(name: str) -> Decoder:
    """The decoder that ``module:attribute`` names, with the current folder on the module path.

    What can be called without arguments is a factory, and what it returns is the decoder.

    Raises:
        OptionError: the name is not of this form.
        ModuleError: the module cannot be imported, has no such attribute, or what it names is no decoder.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise OptionError(f"--decoder: expected MODULE:NAME such as my_model:load_decoder, got {name!r}.")
    found = _attribute(_module(module_name), module_name, attribute)
    if not callable(found):
        raise ModuleError(
            f"--decoder: {name} is a {type(found).__name__}, expected a torch.nn.Module, a function of latents, or a "
            "function without arguments that returns one of them."
        )
    if _takes_nothing(found):
        made = guarded(f"--decoder: {name}() failed", found)
        if not callable(made):
            raise ModuleError(
                f"--decoder: {name}() returned a {type(made).__name__}, expected a torch.nn.Module or a function of "
                "latents. Does it forget to return the decoder?"
            )
        return made
    return found


def try_out(manifold: PullbackManifold, z: Tensor) -> None:
    """Do with two latents, under guard, all that will be done with the rest.

    Raises:
        PullgeoError: what pullgeo has to say of the decoder.
        ModuleError: the decoder itself failed.
    """
    few = z[:2]
    shape = f"{tuple(few.shape)} of {str(few.dtype).removeprefix('torch.')}"
    guarded(f"--decoder: it failed on latents {shape}", lambda: manifold.metric(few).dense())
    double = manifold.in_double()
    line = torch.stack([few[:1], few[:1], few[-1:]], dim=1).double()
    fix = (
        "Geodesics are solved in double precision: name the torch.nn.Module itself, which is converted for that, or "
        "let the function take float64 latents."
    )
    guarded(
        "--decoder: it failed on float64 latents or has no second derivative", lambda: double.expand_energy(line), fix
    )


def guarded(failure: str, action: Callable[[], Result], fix: str = "") -> Result:
    """Run code of the user's; whatever it raises becomes one sentence that says where it was.

    Raises:
        PullgeoError: unchanged, where the code got an error of this package.
        ModuleError: it raised anything else.
    """
    try:
        return action()
    except PullgeoError:
        raise
    except (Exception, SystemExit) as error:
        raise ModuleError(f"{failure}: {_summary(error)}. {fix}") from error


def _module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return guarded(f"--decoder: module {name} failed when it was imported", lambda: importlib.import_module(name))
    except ModuleError as error:
        cause = error.__cause__
        if (
            isinstance(cause, ModuleNotFoundError)
            and cause.name is not None
            and (name + ".").startswith(cause.name + ".")
        ):
            raise ModuleError(
                f"--decoder: {name} is neither a module in this folder, {here}, nor installed ({cause}). Go to the "
                "folder it is in, or install it."
            ) from cause
        raise


def _attribute(module: Any, module_name: str, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = ", ".join(name for name in vars(module) if not name.startswith("_")) or "no public names"
            raise ModuleError(f"--decoder: module {module_name} has no {attribute!r}; it has {public}.")
        found = getattr(found, part)
    return found


def _takes_nothing(found: Callable[..., Any]) -> bool:
    if isinstance(found, nn.Module):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):  # it needs arguments, or is built in and does not tell
        return False
    return True


def _summary(error: BaseException) -> str:
    """What was raised and in which of the user's lines, the last one outside of installed packages."""
    words = " ".join(str(error).split()).rstrip(".")
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if isinstance(error, SyntaxError):
        return said
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    return f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else said


def _is_users(filename: str) -> bool:
    ours = Path(__file__).parents[1]
    path = Path(filename)
    return path.exists() and ours not in path.parents and "site-packages" not in path.parts and not _is_standard(path)


def _is_standard(path: Path) -> bool:
    return Path(importlib.__file__).parents[1] in path.parents
