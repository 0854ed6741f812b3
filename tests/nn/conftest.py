"""What tests of layers share."""

from collections.abc import Iterator

import pytest

from tidegate.errors import TidegateNotice
from tidegate.runtime import support


@pytest.fixture
def reference_path_notice() -> Iterator[None]:
    """For a test of something that has no kernels: the notice that says so comes, though it was said before."""
    if not support.enabled():
        yield
        return
    support.warn_once.cache_clear()
    with pytest.warns(TidegateNotice, match="^cell '.*' computes on the reference path: "):
        yield
