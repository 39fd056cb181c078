"""The second source: an archive of the dataset in a Hugging Face dataset repository."""

from collections.abc import Iterable
from pathlib import Path

from dassl.data.archives import SUFFIXES, is_archive
from dassl.utils.disk import check_space
from dassl.utils.download import DownloadError, fetch_from_hub, file_checksum, hub_files
from dassl.utils.names import bare


def archive_stem(name: str) -> str:
    """An archive's file name without folder, suffix, case and punctuation: "a/Caltech-101.tar.gz" → "caltech101"."""
    name = name.rpartition("/")[2].lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return bare(name)


def fetch_copy(repository: str, names: Iterable[str], folder: Path, limit: int) -> Path:
    """Download the archive in a hub dataset that has one of `names` into `folder`, and return its path.

    Raises:
        DownloadError: the hub has no such archive or cannot be reached, the archive is larger than `limit` bytes, or
            the downloaded file is damaged.
        DiskFullError: there is not enough space.
    """
    wanted = {bare(name) for name in names}
    files = hub_files(repository, "dataset")
    archive = next((file for file in files if is_archive(file.path) and archive_stem(file.path) in wanted), None)
    if archive is None:
        raise DownloadError(f"Hugging Face hub {repository} holds no archive named {' or '.join(sorted(wanted))}")
    if archive.size > limit:
        raise DownloadError(f"{archive.path} of {repository} has {archive.size:,} bytes; the limit is {limit:,}")
    folder.mkdir(parents=True, exist_ok=True)
    check_space(folder, archive.size, f"downloading {archive.path}")
    path = fetch_from_hub(repository, archive.path, folder, "dataset")
    expected = archive.lfs.sha256 if archive.lfs else ""
    if path.stat().st_size != archive.size or (expected and file_checksum(path, "sha256") != expected):
        path.unlink()
        raise DownloadError(f"{archive.path} of {repository} was damaged in the download and deleted: try again")
    return path
