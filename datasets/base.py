"""The base class of the datasets: it finds the files, reads the published split, checks it and draws the subset."""

from collections.abc import Callable
from pathlib import Path

from yacs.config import CfgNode

from dassl.config import setting
from dassl.data.datasets import DatasetBase
from datasets.fewshot import few_shot, subsample_classes
from datasets.sources import Source, tool_command
from datasets.splits import Split, read_split, relocate
from datasets.validation import check_files_exist, check_split

DEFAULT_ROOT = "./data"
DEFAULT_TEMPLATE = "a photo of a {}."


def fill_template(template: str, classname: str) -> str:
    """The prompt of a class: underscores in its name are spaces."""
    return template.format(classname.replace("_", " "))


class ClipDataset(DatasetBase):
    """Base of the datasets in this folder.

    A subclass sets ``dataset_dir`` and, where they differ, the other class attributes. Its ``__init__(cfg)`` builds a
    ``Split`` and passes it to ``finish``.
    """

    template = DEFAULT_TEMPLATE  # hand-written prompt of zero-shot CLIP
    dataset_dir: str | Path = ""  # published folder name below DATASET.ROOT
    dir_aliases: tuple[str, ...] = ()  # folder names that mirrors use
    layout = ""  # expected content of the folder, for messages
    by_hand = ""  # what the user must do if `prepare` cannot download the dataset
    expected: tuple[int, int, int] | None = None  # published sizes: train, val, test
    expected_classes: int | None = None
    ignored_folders: tuple[str, ...] = ()  # class folders that are not part of the dataset
    sources: tuple[Source, ...] = ()  # where `prepare` gets the files
    on_published_split = True  # False if the split was made from the original annotations
    hub_copy = ""  # Hugging Face dataset with an archive of this one, used if the sources fail

    @classmethod
    def data_root(cls, cfg: CfgNode) -> Path:
        """DATASET.ROOT as an absolute path; ./data if it is empty."""
        return Path(cfg.DATASET.ROOT or DEFAULT_ROOT).expanduser().absolute()

    def locate(self, cfg: CfgNode) -> Path:
        """The dataset's folder; sets ``self.dataset_dir`` to it.

        Raises:
            FileNotFoundError: no such folder; the message says where it was looked for and how to get it.
        """
        root = self.data_root(cfg)
        candidates = [root / name for name in (self.dataset_dir, *self.dir_aliases)]
        found = next((folder for folder in candidates if folder.is_dir()), None)
        if found is None:
            raise self.missing(root, *candidates)
        self.dataset_dir = found
        pickle = found / "split_fewshot" / f"shot_{cfg.DATASET.NUM_SHOTS}-seed_{cfg.SEED}.pkl"
        if pickle.exists():
            print(f"{pickle} is not read (unpickling can run code): the subset is drawn again from the split")
        return found

    def missing(self, root: Path, *looked_for: Path) -> FileNotFoundError:
        """The error for a dataset, or a part of it, that is in none of the places."""
        name = type(self).__name__
        lines = [
            f"{name} was not found or is incomplete.",
            f"  looked for: {' or '.join(str(path) for path in looked_for)}",
            f"  expected:   {self.layout}",
            f"  get it:     {tool_command('prepare', name, root)}",
        ]
        if self.by_hand:
            lines.append(f"  manually:   {self.by_hand}")
        lines.append(
            "  elsewhere:  set DATASET.ROOT (train.py --root, DATA for the scripts) to the folder that contains it"
        )
        return FileNotFoundError("\n".join(lines))

    def require(self, *candidates: Path) -> Path:
        """The first of the paths that exists.

        Raises:
            FileNotFoundError: none of them exists.
        """
        for path in candidates:
            if path.exists():
                return path
        raise self.missing(Path(self.dataset_dir).parent, *candidates)

    def published_split(self, image_dir: Path, build: Callable[[], Split]) -> Split:
        """The published split, ``split_zhou_<Name>.json`` in the dataset's folder.

        Without that file, ``build`` makes the split from the original annotations, as CoOp does.
        """
        folder, name = Path(self.dataset_dir), type(self).__name__
        path = folder / f"split_zhou_{name}.json"
        if path.exists():
            return relocate(read_split(path, image_dir), image_dir, folder, self.ignored_folders)
        self.on_published_split = False
        print(
            f"{path} not found: the split is made from the original annotations. Accuracies are comparable with "
            f"published ones only on the published split: {tool_command('prepare', name, folder.parent)}"
        )
        try:
            split = build()
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged annotation file can fail in any way
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{name}: the annotations in {folder} are damaged ({reason}). Download them again"
            ) from error
        return relocate(split, image_dir, folder, self.ignored_folders)

    def finish(self, cfg: CfgNode, split: Split, ready: bool = False) -> None:
        """Check the split, draw the shots, choose base or new classes, and initialise the dataset.

        Args:
            cfg: DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES and SEED.
            split: all items.
            ready: the files are known to exist and the shots are already drawn.

        Raises:
            FileNotFoundError: the split lists files that do not exist.
            ValueError: the split is inconsistent.
        """
        name = type(self).__name__
        check_split(*split, name, self.expected_classes)
        if not ready:
            prepare = tool_command("prepare", name, Path(self.dataset_dir).parent)
            remedy = f"unpack them again ({prepare})" if self.sources else "restore them"
            check_files_exist([item.impath for items in split for item in items], name, remedy)
        self._compare_sizes(split, ready)
        if not ready:
            split = few_shot(split, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        split = subsample_classes(split, setting(cfg, "DATASET.SUBSAMPLE_CLASSES"))
        super().__init__(train_x=split.train, val=split.val, test=split.test)

    def _compare_sizes(self, split: Split, drawn: bool) -> None:
        """Print a note if the sizes are not the published ones; those of a drawn training set say nothing."""
        sizes = tuple(len(items) for items in split)
        first = 1 if drawn else 0
        if self.expected and sizes[first:] != self.expected[first:]:
            name = type(self).__name__
            print(
                f"Note: {name} has {sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test images here; "
                f"published: {' / '.join(f'{size:,}' for size in self.expected)}. See "
                + tool_command("check", name, Path(self.dataset_dir).parent)
            )
