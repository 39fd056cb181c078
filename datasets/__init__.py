"""The datasets. All modules in this folder are imported and register their classes: adding a file is enough."""

import importlib
import pkgutil
import sys

from dassl.utils import command

if sys.argv[:1] == ["-m"]:  # this is `python -m datasets` before its __main__: the imports below take seconds
    command.watch_signals()


def _import_modules() -> None:
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("__"):
            continue
        try:
            importlib.import_module(f"{__name__}.{module.name}")
        except Exception as error:
            where = f"{__path__[0]}/{module.name}"
            raise ImportError(f"The dataset module {where}.py cannot be imported: {error}") from error


_import_modules()
