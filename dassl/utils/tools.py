"""Dassl's path of helpers that are defined in one module per idea here. For plug-ins; it imports torch."""

from dassl.utils.download import download_url
from dassl.utils.environment import collect_env_info, set_random_seed
from dassl.utils.files import (
    atomic_write,
    check_isfile,
    listdir_nohidden,
    lock_folder,
    mkdir_if_missing,
    read_json,
    remove_temporaries,
    write_json,
)
from dassl.utils.images import read_image
from dassl.utils.names import check_availability, closest_hint, get_most_similar_str_to_a_from_b, tolist_if_not

__all__ = [
    "atomic_write",
    "check_availability",
    "check_isfile",
    "closest_hint",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "lock_folder",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "remove_temporaries",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]
