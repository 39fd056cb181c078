"""Get a dataset: download, verify, unpack, and end in a state that `check` calls good."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from scipy.io import loadmat

from dassl.data.archives import ArchiveError, is_archive, unpack
from dassl.utils import read_json
from dassl.utils.download import DownloadError, download_url, file_checksum, through_mirror
from datasets.base import ClipDataset
from datasets.listing import read_classnames
from datasets.sources import Source
from datasets.splits import read_split
from datasets.tool.build import bare, folder_names, registered
from datasets.tool.check import Report, check, dataset_folder
from datasets.tool.hub import archive_stem, fetch_copy


class PrepareError(OSError):
    """A dataset that could not be prepared."""


def prepare(name: str, root: Path, archives: Sequence[Path] = ()) -> Report:
    """Bring what is missing of a dataset; what is there already stays untouched.

    Files arrive whole or not at all: downloads and unpacked files gather in `.prepare` in the dataset's folder, where
    an interrupted call is continued, and are moved into place when they are complete.

    Args:
        name: a registered name.
        root: DATASET.ROOT.
        archives: files that the user already has, used instead of downloading; they are kept.

    Returns:
        What `check` says afterwards.

    Raises:
        PrepareError: some file could not be had from any place; all places and reasons are listed.
        FileNotFoundError: an archive is not there.
        ValueError: the dataset has no sources, or an archive is none of this dataset's.
    """
    dataset = registered()[name]
    if not issubclass(dataset, ClipDataset) or not dataset.sources:
        raise ValueError(f"{name} has nothing to prepare: {dataset.layout if issubclass(dataset, ClipDataset) else ''}")
    given = recognise(dataset, archives)
    folder = dataset_folder(name, root)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{folder.name}.lock"):
        report = check(name, root)
        needed = [source for problem in report.problems for source in problem.sources]
        needed += [s for s in dataset.sources if s.file in given and s not in needed and not report.good]
        if needed:
            with work_folder(folder) as work:
                failures = get_all(dataset, folder, work, needed, given)
                report = check(name, root)  # not every file is needed: annotations are not where the split is there
                if failures and not report.good and dataset.hub_copy:
                    failures += get_copy(dataset, folder, work)
                    report = check(name, root)
                if failures and not report.good:
                    raise PrepareError(unprepared(dataset, report, failures))
    return report


def unprepared(dataset: type[ClipDataset], report: Report, failures: Sequence[str]) -> str:
    """The message that says what is wrong, what could not be had, and what to do."""
    folder = report.folder
    lines = [f"{dataset.__name__} is not complete.", *(problem.what for problem in report.problems)]
    lines += ["What could not be had:", *(f"  - {failure}" for failure in failures)]
    lines.append(f"What has come stays in {folder}; the same command goes on from there.")
    lines.append("A file that you have from elsewhere is taken with --archive FILE.")
    if dataset.by_hand:
        lines.append(f"By hand: {dataset.by_hand}")
    return "\n".join(lines)


def recognise(dataset: type[ClipDataset], archives: Sequence[Path]) -> dict[str, Path]:
    """The archives that the user has, by the name of the source's file; "" is one of the whole dataset."""
    known = {source.file.lower(): source for source in dataset.sources}
    given: dict[str, Path] = {}
    for archive in archives:
        if not archive.is_file():
            raise FileNotFoundError(f"--archive: there is no file {archive.absolute()}")
        if archive.name.lower() in known:
            given[known[archive.name.lower()].file] = archive
        elif is_whole_folder(archive, dataset):
            given[""] = archive
        else:
            raise ValueError(
                f"--archive: {archive.name} is none of this dataset's files: "
                f"{', '.join(source.file for source in dataset.sources)}, or an archive of the whole folder named "
                f"{dataset.dataset_dir}"
            )
    return given


def is_whole_folder(archive: Path, dataset: type[ClipDataset]) -> bool:
    """Whether an archive is named as the dataset's folder."""
    return archive_stem(archive.name) in {bare(name) for name in folder_names(dataset)}


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """`.prepare` in the dataset's folder; its downloads stay for the next call if the block fails."""
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
    """Bring the needed sources from the user's archives or their addresses; what could not be had, and why."""
    if "" in given:
        place_copy(dataset, given[""], folder, work)
        needed = [source for source in needed if not (folder / source.gives).exists()]
    return [reason for source in needed for reason in get(source, dataset, folder, work, given.get(source.file))]


def get_copy(dataset: type[ClipDataset], folder: Path, work: Path) -> list[str]:
    """Bring the hub's copy of the whole dataset; why it did not work, if it did not."""
    try:
        place_copy(dataset, fetch_copy(dataset.hub_copy, folder_names(dataset), work / "hub"), folder, work)
    except (DownloadError, ArchiveError) as error:
        return [str(error)]
    return []


def get(source: Source, dataset: type[ClipDataset], folder: Path, work: Path, archive: Path | None) -> list[str]:
    """Bring one source into the dataset's folder; the reasons why it did not work, if it did not."""
    if archive is not None:
        try:
            verify(source, archive)
        except ValueError:
            if not is_whole_folder(archive, dataset):
                raise
            place_copy(dataset, archive, folder, work)  # of the same name as the source's file
        else:
            place(source, dataset, archive, folder, work)
        return []
    if not source.urls:
        return [f"{source.file} needs a login or a hand: pass it with --archive"]
    reasons = []
    for url in map(through_mirror, source.urls):
        target = work / source.file
        try:
            if not target.exists():  # complete, if an earlier call could not unpack it
                download_url(url, target, source.checksum)
            place(source, dataset, target, folder, work)
        except DownloadError as error:
            reasons.append(str(error))
        except ValueError as error:  # an archive that is damaged or unsafe, a split that is none
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
            "or another file. Get it again"
        )


def place(source: Source, dataset: type[ClipDataset], file: Path, folder: Path, work: Path) -> None:
    """Put a source's file, unpacked if it is an archive, where it belongs.

    Raises:
        ValueError: the archive is damaged, unsafe or another one, or a split is not the published one.
    """
    if not is_archive(file):
        check_plain_file(source, file, dataset)
        staged = work / f"placed-{file.name}"
        shutil.copyfile(file, staged)
        os.replace(staged, folder / source.gives)
        return
    content = unpack_fully(file, work) / source.inside
    if not content.is_dir():
        raise ArchiveError(f"{file.name} holds no folder {source.inside}: it is another archive")
    if source.arrange:
        source.arrange(content, folder)
    given = Path(source.gives).relative_to(source.into)
    if not (content / given).exists():
        raise ArchiveError(f"{file.name} does not hold {given}: it is another archive")
    move_into(content, folder / source.into, last=given.parts[0] if given.parts else "")


def place_copy(dataset: type[ClipDataset], archive: Path, folder: Path, work: Path) -> None:
    """Put the content of an archive of the whole dataset into its folder, whether or not it lies in one itself."""
    content = unpack_fully(archive, work)
    entries = [entry for entry in content.iterdir() if not entry.name.startswith(("__MACOSX", "."))]
    names = {bare(name) for name in folder_names(dataset)}
    if len(entries) == 1 and entries[0].is_dir() and bare(entries[0].name) in names:
        content = entries[0]
    if not any((content / source.gives).exists() for source in dataset.sources if not source.is_split):
        expected = ", ".join(source.gives for source in dataset.sources)
        raise ArchiveError(f"{archive.name} holds none of {expected}: it is not the folder of {dataset.__name__}")
    move_into(content, folder)


def unpack_fully(archive: Path, work: Path) -> Path:
    """The folder with an archive's files; archives in it are unpacked too, each into a folder of its name."""
    folder = work / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    for path in [path for path in unpack(archive, folder) if is_archive(path)]:
        inner = path.with_name(path.name.split(".")[0])
        unpack(path, inner)
        path.unlink()
        if (inner / inner.name).is_dir() and len(list(inner.iterdir())) == 1:  # a folder of its name already
            (inner / inner.name).rename(inner.with_name(f"{inner.name}.inner"))
            inner.rmdir()
            inner.with_name(f"{inner.name}.inner").rename(inner)
    return folder


def move_into(content: Path, target: Path, last: str = "") -> None:
    """Move files and folders without overwriting any; `last` comes last, so that it tells that all are there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(content, target)
        return
    for entry in sorted(content.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        if entry.is_dir() or not (target / entry.name).exists():
            move_into(entry, target / entry.name)


def check_plain_file(source: Source, file: Path, dataset: type[ClipDataset]) -> None:
    """Raise a ValueError unless a file that is no archive is what it should be: a server may send a web page."""
    if source.is_split:
        check_published_split(file, dataset)
    elif file.suffix == ".json":
        read_json(file)
    elif file.name == "classnames.txt":
        read_classnames(file)
    elif file.suffix == ".mat":
        try:
            loadmat(file)
        except Exception as error:  # a damaged file can fail in any way
            raise ValueError(f"{file.name} is no MATLAB file ({error})") from error


def check_published_split(file: Path, dataset: type[ClipDataset]) -> None:
    """Raise a ValueError unless a split file has the published sizes."""
    sizes = tuple(len(items) for items in read_split(file, ""))
    if sizes != dataset.expected:
        raise ValueError(f"it is another split: {sizes} training, validation and test images, not {dataset.expected}")
