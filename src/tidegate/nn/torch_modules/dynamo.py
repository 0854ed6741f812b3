"""Drop-ins under torch.compile: dynamo traces what derives from nn.RNNBase only where `allow_rnn` is set.

See docs/decisions/0015-drop-ins-under-torch-compile.md.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

CONFIG = "torch._dynamo.config"


class _Finder:
    """Sets the option when torch imports its configuration, which takes a second and is rarely needed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != CONFIG:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_set(module: ModuleType) -> None:
            load(module)
            module.allow_rnn = True  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_set  # type: ignore[method-assign]
        return spec


def allow_tracing() -> None:
    """Let dynamo trace recurrent modules in this process."""
    config = sys.modules.get(CONFIG)
    if config is not None:
        config.allow_rnn = True  # type: ignore[attr-defined]
    elif not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
