"""What every test shares: seeds, one thread, a cache of kernels, golden texts, and real data where it is at hand."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported anywhere

import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"

settings.register_profile("tidegate", deadline=None, derandomize=True, database=None)
settings.load_profile("tidegate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write tests/golden anew instead of comparing with it")


def pytest_configure(config: pytest.Config) -> None:
    """Kernels are kept for one session, beside those of the user, and the tests' own processes find them too."""
    if "TIDEGATE_CACHE" not in os.environ:
        folder = os.environ["TIDEGATE_CACHE"] = tempfile.mkdtemp(prefix="tidegate-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        config.add_cleanup(lambda: os.environ.pop("TIDEGATE_CACHE", None))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.environ.get("TIDEGATE_NATIVE") == "0" and item.get_closest_marker("kernels"):
        pytest.skip("TIDEGATE_NATIVE=0: layers do not run on kernels")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--golden"):
        others = [item for item in items if "golden" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers for each test, alone or in company."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("lstm.txt", text)`: the text is that of tests/golden/lstm.txt; `make golden` writes it anew."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        if not path.exists():
            pytest.fail(f"tests/golden/{name} does not exist yet: run make golden, read it and commit it")
        assert text == path.read_text(encoding="utf-8"), (
            f"tests/golden/{name} differs: see CONTRIBUTING.md, 'Golden texts'"
        )

    return compare


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a checkout; a test that needs it is skipped where it is absent."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "ETTh1.csv").is_file():
            return folder / "shared" / "data"
    pytest.skip("needs real data: no folder above this checkout has shared/data/ETTh1.csv")
