"""Download, verify and unpack a dataset, so that `check` finds it good."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from dassl.data.archives import ArchiveError, Limits, is_archive, unpack
from dassl.utils import read_json
from dassl.utils.disk import DISK_FULL, readable_size
from dassl.utils.download import MAX_SIZE, DownloadError, download_url, file_checksum, through_mirror
from dassl.utils.names import bare
from datasets.base import ClipDataset
from datasets.listing import read_classnames
from datasets.matlab import read_variables
from datasets.sources import Source, allowance
from datasets.splits import read_split
from datasets.tool.build import folder_names, registered
from datasets.tool.check import Report, check, dataset_folder
from datasets.tool.hub import archive_stem, fetch_copy

LARGEST = 2**28  # bytes of a file in an archive that is not an archive itself; images have a few million


class PrepareError(OSError):
    """A dataset that could not be prepared."""


def prepare(name: str, root: Path, archives: Sequence[Path] = ()) -> Report:
    """Download what is missing of a dataset; existing files are left alone.

    Downloads and unpacked files are collected in `.prepare` in the dataset's folder and moved into place when they are
    complete. The next call continues an interrupted one.

    Args:
        name: a registered name.
        root: DATASET.ROOT.
        archives: files to use instead of downloading them; they are kept.

    Returns:
        What `check` says afterwards.

    Raises:
        PrepareError: a file could not be downloaded from any URL (the message lists all URLs and reasons), or the disk
            is full.
        FileNotFoundError: an archive does not exist.
        ValueError: the dataset has no sources, or an archive is not one of this dataset's.
    """
    dataset = registered()[name]
    if not issubclass(dataset, ClipDataset) or not dataset.sources:
        raise ValueError(f"{name} has nothing to prepare: {dataset.layout if issubclass(dataset, ClipDataset) else ''}")
    given = recognise(dataset, archives)
    folder = dataset_folder(name, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _prepare(dataset, name, root, folder, given)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise PrepareError(no_space(dataset, folder, error)) from error


def _prepare(dataset: type[ClipDataset], name: str, root: Path, folder: Path, given: dict[str, Path]) -> Report:
    """Prepare a dataset in its folder, which no other process prepares at the same time."""
    with FileLock(root / f".{folder.name}.lock"):
        report = check(name, root)
        needed = [source for problem in report.problems for source in problem.sources]
        needed += [s for s in dataset.sources if s.file in given and s not in needed and not report.good]
        if needed:
            with work_folder(folder) as work:
                failures = get_all(dataset, folder, work, needed, given)
                report = check(name, root)  # not every file is needed: the split replaces annotations
                if failures and not report.good and dataset.hub_copy:
                    failures += get_copy(dataset, folder, work)
                    report = check(name, root)
                if failures and not report.good:
                    raise PrepareError(unprepared(dataset, report, failures))
    return report


def no_space(dataset: type[ClipDataset], folder: Path, error: OSError) -> str:
    """The error message for a full disk."""
    reason = f"{error.filename or folder}: {error.strerror}" if error.strerror else str(error)
    lines = [f"{dataset.__name__} could not be prepared: {reason}."]
    if sizes := [source.size for source in dataset.sources if source.size is not None]:
        lines.append(f"All of it needs up to {readable_size(2 * sum(sizes))} while it is prepared, half of it later.")
    lines.append(f"Free some space in {folder}, or move the datasets to another disk and pass it as --root.")
    lines.append("Complete downloads and files in place are kept: run the same command again to continue.")
    return "\n".join(lines)


def limits_of(dataset: type[ClipDataset], sources: Iterable[Source]) -> Limits:
    """What the archives of these sources may unpack to."""
    size = allowance(sources)
    files = 4 * sum(dataset.expected) + 10_000 if dataset.expected else Limits.files
    return Limits(files=files, largest=LARGEST) if size is None else Limits(size, files, LARGEST)


def unprepared(dataset: type[ClipDataset], report: Report, failures: Sequence[str]) -> str:
    """The error message: the problems, what could not be downloaded, and what to do."""
    folder = report.folder
    lines = [f"{dataset.__name__} is incomplete.", *(problem.what for problem in report.problems)]
    lines += ["Could not get:", *(f"  - {failure}" for failure in failures)]
    lines.append(f"Files that were downloaded stay in {folder}: run the same command again to continue.")
    lines.append("To use a file from another source, pass --archive FILE.")
    if dataset.by_hand:
        lines.append(f"Manually: {dataset.by_hand}")
    return "\n".join(lines)


def recognise(dataset: type[ClipDataset], archives: Sequence[Path]) -> dict[str, Path]:
    """The user's archives by the file name of their source; "" for an archive of the whole dataset."""
    known = {source.file.lower(): source for source in dataset.sources}
    given: dict[str, Path] = {}
    for archive in archives:
        if not archive.is_file():
            raise FileNotFoundError(f"--archive: {archive.absolute()} does not exist")
        if archive.name.lower() in known:
            given[known[archive.name.lower()].file] = archive
        elif is_whole_folder(archive, dataset):
            given[""] = archive
        else:
            raise ValueError(
                f"--archive: {archive.name} is not one of this dataset's files: "
                f"{', '.join(source.file for source in dataset.sources)}, or an archive of the whole folder named "
                f"{dataset.dataset_dir}"
            )
    return given


def is_whole_folder(archive: Path, dataset: type[ClipDataset]) -> bool:
    """Whether an archive is named like the dataset's folder."""
    return archive_stem(archive.name) in {bare(name) for name in folder_names(dataset)}


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """`.prepare` in the dataset's folder; if the block fails, downloads are kept for the next call."""
    work = folder / ".prepare"
    shutil.rmtree(work / "unpacked", ignore_errors=True)
    work.mkdir(exist_ok=True)
    try:
        yield work
    finally:
        shutil.rmtree(work / "unpacked", ignore_errors=True)
        for empty in (work, folder):
            if not any(empty.iterdir()):
                empty.rmdir()
    shutil.rmtree(work, ignore_errors=True)


def get_all(
    dataset: type[ClipDataset], folder: Path, work: Path, needed: Sequence[Source], given: dict[str, Path]
) -> list[str]:
    """Get the needed sources from the user's archives or their URLs; returns the reasons for failures."""
    if "" in given:
        place_copy(dataset, given[""], folder, work)
        needed = [source for source in needed if not (folder / source.gives).exists()]
    return [reason for source in needed for reason in get(source, dataset, folder, work, given.get(source.file))]


def get_copy(dataset: type[ClipDataset], folder: Path, work: Path) -> list[str]:
    """Get the hub's copy of the whole dataset; returns the reason for a failure, if any."""
    try:
        most = allowance(dataset.sources) or MAX_SIZE
        place_copy(dataset, fetch_copy(dataset.hub_copy, folder_names(dataset), work / "hub", most), folder, work)
    except (DownloadError, ArchiveError) as error:
        if isinstance(error, ArchiveError):
            shutil.rmtree(work / "hub", ignore_errors=True)
        return [str(error)]
    return []


def get(source: Source, dataset: type[ClipDataset], folder: Path, work: Path, archive: Path | None) -> list[str]:
    """Get one source into the dataset's folder; returns the reasons for a failure, if any."""
    if archive is not None:
        try:
            verify(source, archive)
        except ValueError:
            if not is_whole_folder(archive, dataset):
                raise
            place_copy(dataset, archive, folder, work)  # an archive of the whole folder with the source's file name
        else:
            place(source, dataset, archive, folder, work)
        return []
    if not source.urls:
        return [f"{source.file} must be downloaded manually: pass it with --archive"]
    reasons = []
    for url in map(through_mirror, source.urls):
        target = work / source.file
        try:
            if not target.exists():  # else complete: an earlier call could not unpack it
                download_url(url, target, source.checksum, allowance([source]) or MAX_SIZE)
            place(source, dataset, target, folder, work)
        except DownloadError as error:
            reasons.append(str(error))
        except ValueError as error:  # a damaged or unsafe archive, or an invalid split
            reasons.append(f"{url}: {error}")
            target.unlink(missing_ok=True)
        else:
            target.unlink(missing_ok=True)
            return []
    return reasons


def verify(source: Source, archive: Path) -> None:
    """Raise a ValueError unless the user's archive is the published one."""
    algorithm, _, expected = source.checksum.partition(":")
    if expected and (found := file_checksum(archive, algorithm)) != expected:
        raise ValueError(
            f"{archive} ({archive.stat().st_size:,} bytes) has {algorithm} {found}, expected {expected}: it is damaged "
            "or another file. Download it again"
        )


def place(source: Source, dataset: type[ClipDataset], file: Path, folder: Path, work: Path) -> None:
    """Put a source's file, unpacked if it is an archive, where it belongs.

    Raises:
        ValueError: the archive is damaged, unsafe or the wrong one, or a split is not the published one.
    """
    if not is_archive(file):
        check_plain_file(source, file, dataset)
        staged = work / f"placed-{file.name}"
        try:
            shutil.copyfile(file, staged)
            os.replace(staged, folder / source.gives)
        finally:
            staged.unlink(missing_ok=True)
        return
    content = unpack_fully(file, work, limits_of(dataset, [source])) / source.inside
    if not content.is_dir():
        raise ArchiveError(f"{file.name} contains no folder {source.inside}: it is another archive")
    if source.arrange:
        source.arrange(content, folder)
    given = Path(source.gives).relative_to(source.into)
    if not (content / given).exists():
        raise ArchiveError(f"{file.name} does not contain {given}: it is another archive")
    move_into(content, folder / source.into, last=given.parts[0] if given.parts else "")


def place_copy(dataset: type[ClipDataset], archive: Path, folder: Path, work: Path) -> None:
    """Put an archive of the whole dataset, with or without a top-level folder, into the dataset's folder."""
    content = unpack_fully(archive, work, limits_of(dataset, dataset.sources))
    entries = [entry for entry in content.iterdir() if not entry.name.startswith(("__MACOSX", "."))]
    names = {bare(name) for name in folder_names(dataset)}
    if len(entries) == 1 and entries[0].is_dir() and bare(entries[0].name) in names:
        content = entries[0]
    if not any((content / source.gives).exists() for source in dataset.sources if not source.is_split):
        expected = ", ".join(source.gives for source in dataset.sources)
        raise ArchiveError(f"{archive.name} contains none of {expected}: it is not the folder of {dataset.__name__}")
    move_into(content, folder)


def unpack_fully(archive: Path, work: Path, limits: Limits) -> Path:
    """Unpack an archive and the archives in it, each into a folder of its name; returns the folder."""
    folder = work / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    limits = limits.within(archive)
    written = unpack(archive, folder, limits)
    limits = limits.without(written)
    for path in [path for path in written if is_archive(path) and not path.name.startswith(".")]:
        inner = path.with_name(path.name.split(".")[0])
        if inner.is_file():
            raise ArchiveError(f"{archive.name} holds both {inner.name} and {path.name}: not unpacked")
        limits = limits.without(unpack(path, inner, limits))
        path.unlink()
        if (inner / inner.name).is_dir() and len(list(inner.iterdir())) == 1:  # it contained a folder of its name
            (inner / inner.name).rename(inner.with_name(f"{inner.name}.inner"))
            inner.rmdir()
            inner.with_name(f"{inner.name}.inner").rename(inner)
    return folder


def move_into(content: Path, target: Path, last: str = "") -> None:
    """Move files and folders without overwriting any. `last` is moved last: once it exists, everything does."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(content, target)
        return
    for entry in sorted(content.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        if entry.is_dir() or not (target / entry.name).exists():
            move_into(entry, target / entry.name)


def check_plain_file(source: Source, file: Path, dataset: type[ClipDataset]) -> None:
    """Raise a ValueError unless a file that is not an archive can be parsed: a server may send a web page."""
    if source.is_split:
        check_published_split(file, dataset)
    elif file.suffix == ".json":
        read_json(file)
    elif file.name == "classnames.txt":
        read_classnames(file)
    elif file.suffix == ".mat":
        read_variables(file)


def check_published_split(file: Path, dataset: type[ClipDataset]) -> None:
    """Raise a ValueError unless a split file has the published sizes."""
    sizes = tuple(len(items) for items in read_split(file, ""))
    if sizes != dataset.expected:
        raise ValueError(f"it is another split: {sizes} training, validation and test images, not {dataset.expected}")
