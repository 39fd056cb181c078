"""Helpers of all kinds. A name is imported from its module on first use, so that importing this package is cheap."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as below, for type checkers
    from dassl.utils.device import *  # noqa: F403
    from dassl.utils.disk import *  # noqa: F403
    from dassl.utils.download import *  # noqa: F403
    from dassl.utils.environment import *  # noqa: F403
    from dassl.utils.files import *  # noqa: F403
    from dassl.utils.images import *  # noqa: F403
    from dassl.utils.logger import *  # noqa: F403
    from dassl.utils.meters import *  # noqa: F403
    from dassl.utils.names import *  # noqa: F403
    from dassl.utils.registry import *  # noqa: F403
    from dassl.utils.results import *  # noqa: F403
    from dassl.utils.torchtools import *  # noqa: F403

# Module: its public names. Those of the first block import neither torch nor numpy.
_NAMES = {
    "download": "DownloadError download_url fetch_from_hub file_checksum hub_address hub_files through_mirror",
    "disk": "DISK_FULL DiskFullError check_space readable_size",
    "files": "WriteError atomic_write check_isfile listdir_nohidden lock_folder mkdir_if_missing move_into_place"
    " read_json remove_temporaries write_json",
    "logger": "Logger setup_logger",
    "names": "DEFAULT_TEMPLATE DEVICES bare check_availability closest_device closest_hint fill first_few"
    " get_most_similar_str_to_a_from_b is_device is_template readable tolist_if_not",
    "registry": "Registry UnknownNameError",
    "results": "read_results write_results",
    #
    "device": "activate choose_device device_name device_named empty_cache peak_memory_bytes reset_peak_memory sent"
    " synchronize",
    "environment": "collect_env_info describe_device set_random_seed",
    "images": "orientation_of read_image to_rgb",
    "meters": "AverageMeter MetricMeter",
    "torchtools": "adjust_learning_rate count_num_param init_network_weights last_checkpoint load_checkpoint"
    " load_pretrained_weights open_all_layers open_specified_layers plain_state resume_from_checkpoint"
    " save_checkpoint set_bn_to_eval torch_save",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
_SUBMODULES = {*_NAMES, "command", "console", "cpu", "failures", "progress", "safe_load", "tools"}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
