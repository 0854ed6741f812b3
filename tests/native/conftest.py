"""What tests publish in the place of the library's own functions is gone after them, as their code is."""

from collections.abc import Iterator

import pytest

from tidegate.native import _llvm


@pytest.fixture(autouse=True)
def published_before() -> Iterator[None]:
    before = dict(_llvm._published)
    yield
    for name, address in before.items():
        if _llvm._published[name] != address:
            _llvm.publish(name, address)
