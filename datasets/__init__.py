"""The datasets. All modules in this folder are imported and register their classes: adding a file is enough."""

import importlib
import pkgutil
import sys

from dassl.interpreter import require_python


def _import_modules() -> None:
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("__"):
            continue
        try:
            importlib.import_module(f"{__name__}.{module.name}")
        except Exception as error:
            where = f"{__path__[0]}/{module.name}"
            raise ImportError(f"The dataset module {where}.py cannot be imported: {error}") from error


if sys.argv[:1] == ["-m"]:  # `python -m datasets` imports this module before __main__
    with require_python():
        from dassl.utils import command

        command.watch_signals()  # now: the imports below take seconds
        _import_modules()
else:
    _import_modules()
