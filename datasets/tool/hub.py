"""The second source: an archive of the dataset in a Hugging Face data set."""

import os
from collections.abc import Iterable
from pathlib import Path

from dassl.data.archives import SUFFIXES, is_archive
from dassl.utils.download import DownloadError, file_checksum
from datasets.tool.build import bare

HUB_ADDRESS = "https://huggingface.co"


def through_mirror(url: str) -> str:
    """An address, at the mirror that HF_ENDPOINT names if it is one of the hub's."""
    mirror = os.environ.get("HF_ENDPOINT")
    return url.replace(HUB_ADDRESS, mirror.rstrip("/"), 1) if mirror and url.startswith(HUB_ADDRESS) else url


def archive_stem(name: str) -> str:
    """An archive's file name without folder and suffix, spelled plainly: "a/Caltech-101.tar.gz" → "caltech101"."""
    name = name.rpartition("/")[2].lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return bare(name)


def fetch_copy(repository: str, names: Iterable[str], folder: Path) -> Path:
    """The archive in a hub data set that is named as one of `names`, downloaded into `folder`.

    HF_ENDPOINT names a mirror of the hub, as everywhere.

    Raises:
        DownloadError: why the hub did not give it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    wanted = {bare(name) for name in names}
    try:
        files = api.list_repo_tree(repository, repo_type="dataset", recursive=True)
        archives = [
            file
            for file in files
            if isinstance(file, RepoFile) and is_archive(file.path) and archive_stem(file.path) in wanted
        ]
        if not archives:
            raise DownloadError(f"the hub's {repository} holds no archive named {' or '.join(sorted(wanted))}")
        print(f"Fetching {archives[0].path} ({archives[0].size:,} bytes) of {repository} from {api.endpoint}")
        path = Path(api.hf_hub_download(repository, archives[0].path, repo_type="dataset", local_dir=folder))
    except DownloadError:
        raise
    except Exception as error:  # the client's own errors, its HTTP library's, and the system's
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise DownloadError(f"the hub's {repository} at {api.endpoint}: {reason or type(error).__name__}") from error
    expected = archives[0].lfs.sha256 if archives[0].lfs else ""
    if path.stat().st_size != archives[0].size or (expected and file_checksum(path, "sha256") != expected):
        path.unlink()
        raise DownloadError(f"{archives[0].path} of {repository} came damaged and was removed: try again")
    return path
