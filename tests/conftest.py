"""What all tests share. The settings that need no code stand in pyproject.toml."""

import os
import shutil

import jaxtyping
import pytest
import torch


class SameStart:
    """Gives every test and every docstring example the same state of torch, whatever ran before it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--each", type=int, metavar="N", help="of the cases of each test, run N spread evenly, for checks that are slow"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the cases that ``--each`` asks for: the first, the last and what lies evenly between."""
    count = config.getoption("--each")
    if count is None:
        return
    if count < 1:
        raise pytest.UsageError(f"--each takes a number of cases from 1 up, not {count}")
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for same in cases.values():
        most = min(count, len(same))
        kept |= {same[round(number * (len(same) - 1) / max(most - 1, 1))] for number in range(most)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_configure(config: pytest.Config) -> None:
    # The tensors in tests are too small to gain from threads.
    torch.set_num_threads(1)
    # As a plugin of its own it reaches the examples in the package too, which lie outside this folder.
    config.pluginmanager.register(SameStart())


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls the package as its users do, without the checks of annotations that are switched on in tests.

    For tests of the package's own errors: an argument that contradicts its annotation gets as far as the library.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser that can open a page without a screen.

    Where there is none the test is skipped, or fails if the environment variable PULLGEO_REQUIRE_BROWSER is 1.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    reason = "no chromium on PATH; install it to have the pages checked (Debian: apt-get install chromium)"
    if os.environ.get("PULLGEO_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node() -> str:
    """Path of the program that runs JavaScript, 20 or newer.

    Where there is none the test is skipped, or fails if the environment variable PULLGEO_REQUIRE_NODE is 1.
    """
    path = shutil.which("node")
    if path is not None:
        return path
    reason = "no node on PATH; install it to have the page's mathematics checked (Debian: apt-get install nodejs)"
    if os.environ.get("PULLGEO_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
