"""Reading the configuration that a run has saved, which anything may have happened to since."""

from typing import Any

from dassl.config.merge import flatten
from dassl.config.yaml_file import parse_yaml

__all__ = ["IRRELEVANT", "saved_settings"]

#: Keys that change the speed of a run, what it keeps or what it prints, never what it computes
IRRELEVANT = (
    *("USE_CUDA", "DEVICE", "VERBOSE", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB", "DATALOADER.FEATURES"),
    *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHECKPOINT_TOWERS", "TRAIN.CUDA_GRAPH"),
)


def saved_settings(text: str | bytes, source: str) -> dict[str, Any]:
    """The leaves of a YAML text as {"OPTIM.LR": value}; empty if the text is.

    Raises:
        ValueError: see :func:`parse_yaml`.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return dict(flatten(parse_yaml(data, source) or {}))
