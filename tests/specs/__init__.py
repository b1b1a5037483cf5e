"""One file for each optimizer, with everything that the tests need to know of it.

A file has SPEC, or SPECS for a family; the names are those of the classes. Nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil

from tests.specs._spec import Spec

SPECS: dict[str, Spec] = {}
for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        SPECS.update(importlib.import_module(f"{__name__}.{_module.name}").SPECS)
