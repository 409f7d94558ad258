"""Modules that are imported once something in them is used, and not before."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

UNUSED_BY_DAEMONS = ("anyio", "anyio.to_thread", "click", "logging.config", "uvicorn")
"""What Starlette and uvicorn import for what our daemons do not use of them.

Of uvicorn itself only the package around its modules, which imports its command line. anyio is imported later
where httpcore needs its locks, with the first request to a hive or to the queen.
"""


def put_off(names: Iterable[str]) -> None:
    """Have `import NAME` import a module only once something in it is used.

    A package's modules can be imported without the package itself. Names that are not installed, or have been
    imported already, are left alone.
    """
    for name in names:
        if name not in sys.modules and (spec := find_spec(name)) is not None:
            sys.modules[name] = module = module_from_spec(spec)
            _load_when_used(module)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)


def _load_when_used(module: ModuleType) -> None:
    lock = RLock()  # two threads may be the first
    is_loading = False

    def load(attribute: str) -> Any:
        """Called for what the module does not have (PEP 562): for all there is, until it has been loaded."""
        nonlocal is_loading
        with lock:
            if is_loading:  # it is asked for something while it is executed
                raise AttributeError(f"partially initialized module {module.__name__!r} has no {attribute!r}")
            if vars(module).get("__getattr__") is load:
                is_loading = True
                try:
                    _execute(module)
                finally:
                    is_loading = False
                if vars(module).get("__getattr__") is load:
                    del module.__getattr__
        return getattr(module, attribute)

    module.__getattr__ = load  # type: ignore[method-assign]


def _execute(module: ModuleType) -> None:
    spec = module.__spec__
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module)
