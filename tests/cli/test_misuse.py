"""Whatever a user gets wrong ends in one sentence, exit code 2, and no file."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pullgeo import __version__
from pullgeo.__main__ import main
from pullgeo.cli import entry
from tests.cli.conftest import Folder, Outcome


def assert_one_sentence(done: Outcome, *words: str) -> None:
    assert done.code == 2
    assert done.err.startswith("pullgeo report: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_model", ["MODULE:NAME", "'my_model'"]),
        ("my_model:", ["MODULE:NAME"]),
        (":load", ["MODULE:NAME"]),
        ("no_such_module:load", ["no_such_module is neither a module in this folder"]),
        ("my_model.sub:load", ["my_model", "not a package"]),
        ("my_model:lod", ["has no 'lod'", "it has", "load"]),
        ("my_model:vae.encoder", ["has no 'vae.encoder'"]),
        ("my_model:number", ["is a int", "expected a torch.nn.Module"]),
        ("my_model:Sized", ["is a class that needs arguments: (size)", "def load():", "return decoder.eval()"]),
        ("my_model:class_of", ["class_of() returned the class Sized", "def load():"]),
        ("my_model:from_file", ["from_file takes (path: str)", "is called with latents", "def load():"]),
    ],
)
def test_decoder_names(folder: Folder, name: str, words: list[str]):
    assert_one_sentence(folder.report(decoder=name), "--decoder", *words)
    assert folder.left() == set()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import no_such_dependency",
            ["theirs failed when it was imported", "no_such_dependency", "theirs.py, line 1"],
        ),
        ("from torch import no_such_name", ["failed when it was imported", "ImportError", "no_such_name", "line 1"]),
        ("x = 1\nx / 0", ["failed when it was imported", "ZeroDivisionError: division by zero", "line 2"]),
        ("def f(:", ["failed when it was imported", "SyntaxError", "theirs.py, line 1"]),
        ("import sys\nsys.exit(3)", ["failed when it was imported", "SystemExit: 3"]),
        ("raise RuntimeError('two\\nlines')", ["RuntimeError: two lines"]),
        ("def net():\n    raise KeyError('weights')", ["theirs:net() failed", "KeyError: 'weights'", "line 2"]),
        ("def net():\n    open('decoder.pt')", ["theirs:net() failed", "FileNotFoundError", "decoder.pt", "line 2"]),
        ("def net():\n    pass", ["theirs:net() returned a NoneType", "forget to return"]),
        ("def net(z):\n    return z.no_such_method()", ["failed on latents (2, 2) of float64", "line 2"]),
        ("def net(z):\n    return z.numpy()", ["returned ndarray, expected a torch.Tensor"]),
        ("def net(z):\n    return (z, z)", ["returned tuple, expected a torch.Tensor"]),
        ("def net(z):\n    return z.sum()", ["maps a batch of 2 to shape ()"]),
        ("def net(z):\n    return z / 0 * 0", ["returned NaN or infinity", "first at index 0"]),
        ("from torch import nn\nnet = nn.Linear(3, 5)", ["2", "3"]),
        ("from torch import nn\nnet = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5))", ["module.eval()"]),
        ("from torch import nn\nnet = nn.Sequential(nn.Linear(2, 5), nn.Dropout())", ["module.eval()"]),
        ("def net(z):\n    return z.sin() if z.dtype.itemsize < 8 else z.no_such_method()", ["float64", "line 2"]),
    ],
)
def test_decoders(folder: Folder, code: str, words: list[str]):
    folder.module("theirs", code)
    assert_one_sentence(folder.report(decoder="theirs:net"), *words)
    assert folder.left() == set()


def test_a_function_that_only_takes_single_precision_is_told_apart(folder: Folder):
    folder.module("theirs", "def net(z):\n    return z.sin() if z.dtype.itemsize < 8 else z.no_such_method()")
    np.save(folder.path / "z.npy", np.load(folder.path / "z.npy").astype(np.float32))
    assert_one_sentence(
        folder.report(decoder="theirs:net"), "failed on latents (2, 2) of float64", "name the torch.nn.Module itself"
    )


# A header that promises more numbers than there are.
CUT_OFF = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (9, 2), }".ljust(117) + b"\n"


def write(path: Path, content: object) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        with path.open("wb") as file:
            np.savez(file, **content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["numpy.save"]),
        (b"not an array", ["numpy.save"]),
        (b"0.5,1.5\n2.5,3.5\n", ["another kind", "numpy.loadtxt"]),
        ({"z/data.pkl": np.zeros(3)}, ["torch.save", "torch.load"]),
        (CUT_OFF, ["numpy.save"]),
        (np.array([{"pickled": 1}]), ["pickle"]),
        ({"a": np.zeros(3), "b": np.zeros(3)}, ["archive of several (a, b)"]),
        (np.zeros(3), ["(3,)"]),
        (np.zeros((3, 1)), ["at least 2", "(3, 1)"]),
        (np.zeros((1, 2)), ["at least 2", "(1, 2)"]),
        (np.zeros((0, 2)), ["(0, 2)"]),
        (np.zeros((4, 2, 3)), ["(4, 2, 3)"]),
        (np.array([["a", "b"], ["c", "d"]]), ["real numbers"]),
        (np.zeros((4, 2), dtype=complex), ["real numbers", "complex128"]),
        (np.array([[0, 1], [np.nan, 2], [3, np.inf]]), ["2 of the 3 rows", "row 1"]),
        (np.ones((5, 2)), ["expected 6 pairs of different latents, found only 0"]),
    ],
)
def test_latents(folder: Folder, content: object, words: list[str]):
    write(folder.path / "bad.npy", content)
    done = folder.report(latents="bad.npy")
    assert_one_sentence(done, "bad.npy" if "pairs" not in words[0] else "--pairs:", *words)
    assert folder.left() <= {"bad.npy"}


def test_latents_that_are_a_folder(folder: Folder):
    assert_one_sentence(folder.report(latents="."), "--latents")


def test_a_decoder_whose_outputs_no_map_can_hold(folder: Folder):
    folder.module("theirs", "import torch\nhuge = lambda z: 1e200 * torch.sin(z @ torch.ones(2, 15, dtype=z.dtype))")
    done = folder.report("--pairs", "1", "--segments", "2", decoder="theirs:huge")
    assert_one_sentence(done, "1e+37", "cannot hold")
    assert folder.left() == set()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (np.zeros(12), ["shape (13,)", "(12,)"]),
        (np.zeros((13, 3)), ["(13, 3)"]),
        (np.arange(13).reshape(13, 1), ["(13, 1)"]),
    ],
)
def test_labels(folder: Folder, content: object, words: list[str]):
    write(folder.path / "bad.npy", content)
    assert_one_sentence(folder.report("--labels", "bad.npy"), "--labels", "bad.npy", *words)
    assert folder.left() <= {"bad.npy"}


def test_too_many_classes(folder: Folder):
    np.save(folder.path / "z.npy", np.random.default_rng(0).standard_normal((60, 2)))
    np.save(folder.path / "y.npy", np.linspace(0, 1, 60))
    done = folder.report("--labels", "y.npy", "--pairs", "1", "--segments", "4")
    assert_one_sentence(done, "60 different values", "bins")
    assert folder.left() == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pairs", "0"], ["--pairs", "from 1 to 100", "got 0"]),
        (["--pairs", "101"], ["--pairs", "got 101"]),
        (["--pairs", "79"], ["expected 79 pairs", "found only 78"]),
        (["--seed", "-1"], ["--seed", "got -1"]),
        (["--segments", "0"], ["segments", "got 0"]),
        (["--image-shape", "4,5", "--pairs", "1", "--segments", "4"], ["20 entries", "returns 15"]),
        (["--image-shape", "2,3,5", "--pairs", "1", "--segments", "4"], ["1 or 3 channels", "(2, 3, 5)"]),
    ],
)
def test_options(folder: Folder, options: list[str], words: list[str]):
    assert_one_sentence(folder.report(*options), *words)
    assert folder.left() == set()


@pytest.mark.parametrize(
    "argv",
    [
        ["report"],
        ["report", "--decoder", "a:b"],
        ["report", "--decoder", "a:b", "--latents", "z.npy", "--image-shape", "28"],
        ["report", "--decoder", "a:b", "--latents", "z.npy", "--image-shape", "0,5"],
        ["report", "--decoder", "a:b", "--latents", "z.npy", "--image-shape", "a,b"],
        ["report", "--decoder", "a:b", "--latents", "z.npy", "--pairs", "many"],
        ["demo", "--unknown"],
        ["nothing"],
    ],
)
def test_arguments_that_do_not_parse(argv: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "report"])
@pytest.mark.parametrize(
    ("output", "words"),
    [(".", "is a folder"), ("nowhere/page.html", "there is no folder"), ("z.npy/page.html", "there is no folder")],
)
def test_outputs(folder: Folder, command: str, output: str, words: str):
    options = ["--decoder", "my_model:load", "--latents", "z.npy"] if command == "report" else []
    done = folder.run(command, *options, "-o", output)
    assert done.code == 2
    assert done.out == ""  # found before the work
    assert done.err.startswith(f"pullgeo {command}: --output: ")
    assert words in done.err
    assert folder.left() == set()


@pytest.mark.parametrize("command", ["demo", "report"])
@pytest.mark.parametrize(
    ("output", "words"),
    [("/dev/null", "not a file"), ("n" * 300, "name too long"), ("a\0b.html", "null byte"), ("pipe", "not a file")],
)
def test_outputs_that_are_no_files(folder: Folder, command: str, output: str, words: str):
    os.mkfifo(folder.path / "pipe")
    options = ["--decoder", "my_model:load", "--latents", "z.npy"] if command == "report" else []
    done = folder.run(command, *options, "-o", output)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err
    assert folder.left() == {"pipe"}


def test_a_link_to_a_page_stays_one(folder: Folder):
    (folder.path / "real").mkdir()
    (folder.path / "page.html").symlink_to("real/page.html")
    assert folder.report("--pairs", "1", "--segments", "4").code == 0
    assert (folder.path / "page.html").is_symlink()
    assert (folder.path / "real" / "page.html").stat().st_size > 1e6


def test_a_folder_that_cannot_be_written_to(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert_one_sentence(folder.report(), "cannot be written to")


def test_a_disk_that_is_full_at_the_end(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    (folder.path / "page.html").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    assert_one_sentence(folder.report("--pairs", "1", "--segments", "4"), "--output", "No space left on device")
    assert folder.left() == {"page.html"}
    assert (folder.path / "page.html").read_bytes() == b"old"


def test_an_interrupt_ends_quietly(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pullgeo.cli.report.latent_report", interrupted)
    done = folder.report("--pairs", "1", "--segments", "4")
    assert (done.code, done.err) == (130, "pullgeo report: interrupted, nothing was written.\n")
    assert folder.left() == set()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IndexError("a bug"), "IndexError: a bug"),
        (KeyError("weights"), "KeyError: 'weights'"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (SystemExit(0), "SystemExit: 0"),
        (StopIteration(), "StopIteration"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (BrokenPipeError(32, "Broken pipe"), "BrokenPipeError: [Errno 32] Broken pipe"),
        (UnprintableError(), "UnprintableError"),
        (ExceptionGroup("several", [ValueError("one")]), "ExceptionGroup: several"),
    ],
)
@pytest.mark.parametrize("command", ["report", "demo"])
def test_anything_unexpected_is_one_sentence_and_a_failure(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str, command: str
):
    def broken(*_: object, **__: object) -> None:
        raise error

    where = {"report": "choose_pairs", "demo": "zoo.digits_vae"}[command]
    monkeypatch.setattr(f"pullgeo.cli.{command}.{where}", broken)
    (folder.path / "page.html").write_text("old")
    done = folder.report() if command == "report" else folder.run("demo", "-o", "page.html")
    assert done.code == 1
    assert done.err.startswith(f"pullgeo {command}: stopped by {words}")
    assert "Nothing was written. Set PULLGEO_DEBUG=1 for the traceback." in done.err
    assert done.err.count("\n") == 1
    assert folder.left() == {"page.html"}
    assert (folder.path / "page.html").read_text() == "old"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_traceback_is_there_for_those_who_ask(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
):
    monkeypatch.setenv("PULLGEO_DEBUG", value)
    folder.module("theirs", "def net():\n    raise KeyError('weights')")
    done = folder.report(decoder="theirs:net")
    assert done.code == 2
    assert ("Traceback" in done.err) is shown
    assert done.err.splitlines()[-1].startswith("pullgeo report: --decoder: theirs:net() failed: KeyError: 'weights'")
    assert done.err.rstrip().endswith("Set PULLGEO_DEBUG=1 for the traceback.")


LATE = """
import torch
from torch import nn
torch.manual_seed(0)
net = nn.Linear(2, 15)
calls = 0

def decode(z):
    global calls
    calls += 1
    if calls > 40:
        raise {error}
    return net(z).tanh()
"""


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("KeyError('late')", 1, "stopped by KeyError: 'late' (theirs.py, line 12)"),
        ("SystemExit(3)", 1, "stopped by SystemExit: 3 (theirs.py, line 12)"),
        ("MemoryError()", 1, "stopped by MemoryError (theirs.py, line 12)"),
        ("RecursionError('deep')", 1, "stopped by RecursionError: deep (theirs.py, line 12)"),
        ("KeyboardInterrupt", 130, "interrupted, nothing was written"),
    ],
)
def test_decoders_that_fail_late(folder: Folder, error: str, code: int, words: str):
    folder.module("theirs", LATE.replace("{error}", error))
    done = folder.report("--pairs", "1", "--segments", "4", decoder="theirs:decode")
    assert (done.code, words in done.err, done.err.count("\n")) == (code, True, 1), done.err
    assert folder.left() == set()


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture):
    assert main([]) == 2
    assert "pullgeo demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--help"], ["demo", "report", "pullgeo report --help"]),
        (["demo", "--help"], ["--output", "pullgeo demo -o"]),
        (["report", "--help"], ["--decoder my_model:load_decoder", "np.save", "--image-shape 28,28", "vae.decoder"]),
        (["report", "--help"], ['torch.load("decoder.pt", weights_only=True)', "imports its module", "trust"]),
        (["report", "--help"], ["--decoder-output 0", "--decoder-output mean", "vae.decode "]),
    ],
)
def test_help_teaches_by_example(argv: list[str], words: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out


def test_version(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"pullgeo {__version__}\n"


def test_as_a_process(folder: Folder):
    command = [sys.executable, "-m", "pullgeo", "report", "--decoder", "my_model:number", "--latents", "z.npy"]
    root = Path(entry.__file__).parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("pullgeo report: --decoder: my_model:number is a int")
    assert folder.left() == set()


def test_the_folder_is_first_on_the_path_for_the_import_alone(folder: Folder):
    folder.module("helper", "value = 15")
    folder.module("colorsys", "raise RuntimeError('this hides the standard library')")
    folder.module(
        "theirs",
        "import sys\nfrom torch import nn\nfrom helper import value\nfirst = sys.path[0]\n"
        "def net():\n    import later\n    return nn.Sequential(nn.Linear(2, value), later.Act())",
    )
    folder.module("later", "from torch import nn\nAct = nn.Tanh")
    before = list(sys.path)
    assert folder.report("--pairs", "1", "--segments", "4", decoder="theirs:net").code == 0
    assert sys.modules["theirs"].first == str(folder.path)
    assert sys.path == [*before, str(folder.path)]
    sys.modules.pop("colorsys", None)
    assert importlib.import_module("colorsys").__file__ != str(folder.path / "colorsys.py")


@pytest.mark.parametrize("name", ["random", "json", "numpy", "torch"])
def test_a_file_with_the_name_of_a_loaded_module_is_told_apart(folder: Folder, name: str):
    folder.module(name, "def net(z):\n    return z")
    assert_one_sentence(folder.report(decoder=f"{name}:net"), f"{name}.py in this folder", "Rename the file")


@pytest.mark.quick(5)
@pytest.mark.parametrize(
    ("text", "option", "code", "words"),
    [
        ("return net(z), z", "0", 0, ""),
        ("return net(z), z", "-2", 0, ""),
        ("return {'mean': net(z), 'n': 3}", "mean", 0, ""),
        ("return torch.distributions.Normal(net(z), 1.0)", "mean", 0, ""),
        ("return net(z), z", None, 2, "[0] of shape (2, 15), [1] of shape (2, 2)"),
        ("return net(z), net(z)", "mean+logvar", 0, ""),
        ("return [net(z)]", None, 0, ""),
        ("return {'mean': net(z), 'n': 3}", None, 0, ""),
        ("return torch.distributions.Normal(net(z), 1.0)", None, 0, ""),
        ("return torch.distributions.Normal(net(z), 1.0)", "mean+std", 0, ""),
        ("return net(z), net(z)", None, 2, "output='mean+logvar' measures both"),
        ("return {'mean': net(z), 's': z}", None, 2, "output=lambda out: out['mean']"),
        ("return {}", None, 2, "returned dict, expected a torch.Tensor"),
        ("return None", None, 2, "returned NoneType, expected a torch.Tensor"),
        ("return net(z), z", "2", 2, "output=2 names no tensor"),
        ("return net(z), z", "mean", 2, "output='mean' names no tensor"),
        ("return {'mean': net(z), 'n': 3}", "n", 2, "which holds 'mean' of shape"),
        ("return net(z)", "0", 2, "which needs no output="),
    ],
)
def test_decoders_that_return_several_things(folder: Folder, text: str, option: str | None, code: int, words: str):
    folder.module("theirs", f"import torch\nnet = torch.nn.Linear(2, 15)\ndef decode(z):\n    {text}")
    options = [] if option is None else [f"--decoder-output={option}"]
    done = folder.report("--pairs", "1", "--segments", "2", *options, decoder="theirs:decode")
    assert done.code == code, done.err
    assert words in done.err
    assert folder.left() == ({"page.html"} if code == 0 else set())
