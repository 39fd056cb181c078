"""What an entry says when this Python cannot run the project: Python 3.6 can read this file, without any package."""

import sys
from contextlib import contextmanager

__all__ = ["PACKAGES", "missing_package", "require_python"]

OLDEST = (3, 10)
# Import names of pyproject's dependencies: a module that is missing and not among these belongs to a user's plug-in
PACKAGES = {
    *("PIL", "filelock", "ftfy", "gdown", "huggingface_hub", "jinja2", "matplotlib", "numpy", "pandas", "regex"),
    *(
        "safetensors",
        "scipy",
        "sklearn",
        "tabulate",
        "tensorboard",
        "torch",
        "torchvision",
        "tqdm",
        "voluptuous",
        "yacs",
        "yaml",
    ),
}
_REMEDY = "Run `bash scripts/setup.sh`, which installs requirements.txt into .venv, then use .venv/bin/python"


def missing_package(error):
    """Return a line that says which package is not installed and what to run; None if ``error`` is something else.

    Its causes are looked through, too: loading a folder of modules wraps the first error.
    """
    while error is not None:
        package = (getattr(error, "name", None) or "").split(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in PACKAGES:
            return f"{sys.executable} has no package '{package}'. {_REMEDY}"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def require_python():
    """End the program with one line if Python is too old, or if an import in the block lacks a package."""
    if sys.version_info < OLDEST:
        found, needed = (f"{major}.{minor}" for major, minor in (sys.version_info[:2], OLDEST))
        _end(f"{sys.executable} is Python {found}, {needed} or newer is needed. {_REMEDY}")
    try:
        yield
    except ImportError as error:
        line = missing_package(error)
        if line is None:
            raise
        _end(line)


def _end(line):
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)
