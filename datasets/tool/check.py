"""Find what is missing or wrong in a dataset, and how to fix it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dassl.data.archives import is_archive
from dassl.data.datasets import DatasetBase
from dassl.utils import orientation_of, read_image
from dassl.utils.progress import progress
from datasets.base import ClipDataset
from datasets.mirrors import SortedCopyError
from datasets.sources import Source, tool_command
from datasets.tool.build import build, folder_names, registered
from datasets.validation import MissingImagesError

CHUNK = 1024  # images queued at once
PARTS = ("train_x", "val", "test")


@dataclass
class Problem:
    """A problem, its remedy, the files concerned, and the sources that provide them."""

    what: str
    remedy: str = ""
    files: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


@dataclass
class Report:
    """What `check` found: sizes of train, val and test, number of classes, the dataset's output, and problems."""

    name: str
    folder: Path
    sizes: tuple[int, int, int] | None = None
    classes: int | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems


def dataset_folder(name: str, root: Path) -> Path:
    """The dataset's folder: an existing one, else the published name; the root for datasets without sources."""
    dataset = registered()[name]
    if not issubclass(dataset, ClipDataset) or not dataset.sources:
        return root
    places = [root / folder for folder in folder_names(dataset)]
    return next((place for place in places if place.is_dir()), places[0])


def check(name: str, root: Path, images: bool = False) -> Report:
    """Build the whole dataset and compare it with the published one.

    Args:
        name: a registered name.
        root: DATASET.ROOT.
        images: also decode every image.
    """
    report = Report(name, dataset_folder(name, root))
    prepare = tool_command("prepare", name, root)
    try:
        dataset, report.notes = build(name, root)
    except MissingImagesError as error:
        what, _, remedy = str(error).partition("\n  ")
        sources = image_sources(name, report.folder, error.paths)
        report.problems.append(Problem(what, prepare if sources else remedy, error.paths, sources))
        return report
    except Exception as error:  # whatever a damaged dataset makes its parser raise
        known = isinstance(error, (FileNotFoundError, ValueError))
        report.problems.append(Problem(str(error) if known else f"{type(error).__name__}: {error}"))
        absent = absent_sources(name, report.folder)
        if isinstance(error, SortedCopyError):
            absent = [source for source in absent if source.is_split]
        if absent:
            splits = {source.gives for source in absent if source.is_split}  # what they replace is not asked for
            files = [str(report.folder / source.gives) for source in absent if splits.isdisjoint(source.instead)]
            report.problems.append(Problem("these do not exist", prepare, files, absent))
        return report
    report.folder = Path(dataset.dataset_dir) if Path(dataset.dataset_dir).is_absolute() else report.folder
    report.sizes = tuple(len(getattr(dataset, part) or []) for part in PARTS)  # type: ignore[assignment]
    report.classes = dataset.num_classes
    report.problems += compare_with_published(dataset, report, prepare)
    if images:
        again = f"remove their folder, then {prepare}" if sources_of(name) else "restore them"
        turned: set[str] = set()
        report.problems += unreadable_images(dataset, again, turned)
        if turned and not sources_of(name):
            report.notes.append(
                f"{len(turned)} images have an EXIF orientation that turns or mirrors them, the first: {min(turned)}. "
                "They are read as stored; train with INPUT.EXIF_ORIENTATION True to read them upright, as viewers do"
            )
    return report


def sources_of(name: str) -> tuple[Source, ...]:
    """Where `prepare` gets a dataset's files; empty for the user's own data and for plug-ins."""
    return getattr(registered()[name], "sources", ())


def image_sources(name: str, folder: Path, paths: list[str]) -> list[Source]:
    """The archives with missing images: those that provide their folders, else all."""
    archives = [source for source in sources_of(name) if is_archive(source.file)]
    places = [(source, f"{folder / source.gives}/") for source in archives]
    return [source for source, place in places if any(path.startswith(place) for path in paths)] or archives


def absent_sources(name: str, folder: Path) -> list[Source]:
    """The sources of a dataset whose files are missing."""
    return [source for source in sources_of(name) if not source.is_in(folder)]


def compare_with_published(dataset: DatasetBase, report: Report, prepare: str) -> Iterator[Problem]:
    """Problems: a split, or else sizes, that are not the published ones."""
    expected = getattr(dataset, "expected", None)
    if not getattr(dataset, "on_published_split", True):
        yield Problem(
            "the split is made from the original annotations: its accuracies are not comparable with published ones",
            prepare,
            sources=[source for source in absent_sources(report.name, report.folder) if source.is_split],
        )
    elif expected and report.sizes != expected:
        found, published = (" / ".join(f"{size:,}" for size in sizes) for sizes in (report.sizes or (), expected))
        what = f"{found} training / validation / test images are here, published: {published}"
        yield Problem(what, f"remove incomplete folders in {report.folder}, then {prepare}")


def unreadable_images(dataset: DatasetBase, again: str, turned: set[str]) -> list[Problem]:
    """Decode every image; returns at most one problem, with all unreadable images. ``turned``: see why_unreadable."""
    paths = list(dict.fromkeys(item.impath for part in PARTS for item in getattr(dataset, part) or []))
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        chunks = (paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK))
        found = (reason for chunk in chunks for reason in pool.map(lambda path: why_unreadable(path, turned), chunk))
        reasons = list(progress(found, "read images", len(paths), unit="image"))
    bad = [f"{path}: {reason}" for path, reason in zip(paths, reasons, strict=True) if reason]
    if not bad:
        return []
    remedy = f"replace them ({again}), or train with DATASET.ON_BAD_IMAGE skip"
    return [Problem(f"{len(bad)} of {len(paths)} images cannot be read", remedy, files=bad)]


def why_unreadable(path: str, turned: set[str] | None = None) -> str:
    """Why an image cannot be decoded to its end; empty if it can.

    A JPEG is decoded at an eighth of its size (draft mode): all of its data are read, in a fraction of the time. The
    path is added to ``turned`` if the image has an EXIF orientation other than upright.
    """
    try:
        image = read_image(path, draft=(1, 1))
    except (OSError, ValueError) as error:
        return str(error).removeprefix(f"{path} ")
    if turned is not None and orientation_of(image) != 1:
        turned.add(path)
    return ""
