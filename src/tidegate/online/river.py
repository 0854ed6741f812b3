"""The interface that river expects of a model, without importing river."""

from __future__ import annotations

import sys
from typing import Any, Self


class RiverModel:
    """The conventions of river's estimators, which its pipelines and its evaluation use.

    A metric of river asks for the class of a model. Where river is imported when a learner is made, the learner's class
    is entered among river's regressors or classifiers as Python's abstract classes allow it.
    """

    _supervised = True
    _multiclass = True
    _is_stochastic = False  # the seed is always set
    _mutable_attributes: frozenset[str] = frozenset()

    @property
    def _tags(self) -> set[str]:
        return set()

    @property
    def _raw_memory_usage(self) -> int:
        return len(self.snapshot())

    def _get_params(self) -> dict[str, Any]:
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """The whole learner as bytes."""
        raise NotImplementedError

    def restore(self, data: bytes) -> Self:
        """Take over everything from a snapshot."""
        raise NotImplementedError

    def clone(self, new_params: dict[str, Any] | None = None, include_attributes: bool = False) -> Self:
        """A learner with the same options, or with some new ones, that has learned nothing; with
        `include_attributes` a copy of this one as it is."""
        made = type(self)(**{**self._get_params(), **(new_params or {})})
        return made.restore(self.snapshot()) if include_attributes else made


def enter(kind: type, family: str) -> None:
    """Register a class as river's `Regressor` or `Classifier`, if river is imported."""
    base = sys.modules.get("river.base")
    if base is not None:
        getattr(base, family).register(kind)
