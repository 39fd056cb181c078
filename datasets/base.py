"""The base class of the datasets: it finds the files, reads the published split, checks it and draws the subset."""

from collections.abc import Callable
from pathlib import Path

from yacs.config import CfgNode

from dassl.config import setting
from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import first_few
from dassl.utils.names import DEFAULT_TEMPLATE, bare
from datasets.fewshot import few_shot, subsample_classes, subsample_lists, with_fewer_images
from datasets.listing import check_encoding, list_folders
from datasets.mirrors import (
    PART_OF,
    SortedCopyError,
    contains_images,
    find_class_folders,
    folder_names,
    holds,
    same_folder,
)
from datasets.sources import Source, tool_command
from datasets.splits import Split, read_split, relocate
from datasets.validation import ClassCountError, check_files_exist, check_split, check_template

DEFAULT_ROOT = "./data"


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

    some_classes: tuple[str, ...] = ()  # some of its class folders, by which a mirror's copy is recognised

    @classmethod
    def data_root(cls, cfg: CfgNode) -> Path:
        """DATASET.ROOT as an absolute path; ./data if it is empty."""
        root = Path(cfg.DATASET.ROOT or DEFAULT_ROOT).expanduser().absolute()
        check_encoding([str(root)], "DATASET.ROOT")
        return root

    def locate(self, cfg: CfgNode) -> Path:
        """The dataset's folder; sets ``self.dataset_dir`` to it.

        Raises:
            FileNotFoundError: no such folder; the message says where it was looked for and how to get it.
        """
        root = self.data_root(cfg)
        candidates = [root / name for name in folder_names(type(self))]
        found = next((folder for folder in candidates if folder.is_dir()), None)
        found = found or same_folder(root, folder_names(type(self)))
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
        if bare(root.name) in map(bare, folder_names(type(self))) and root.is_dir():
            lines.insert(1, f"  {root} seems to be the dataset itself: use --root {root.parent}")
        if self.by_hand and not all(path.suffix for path in looked_for):  # it is about images
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

    def images_folder(self, *candidates: Path) -> Path:
        """The folder of the images: the first of the paths that is one, or where a mirror has the class folders.

        If the images are elsewhere and the published split is there, the first path is returned: ``relocate`` finds
        them by their names.

        Raises:
            FileNotFoundError: there is none.
            SortedCopyError: the class folders are in train/ and test/, and the published split is not there.
        """
        folder = Path(self.dataset_dir)
        existing = [path for path in candidates if path.is_dir()]
        for path in existing:
            if not self.some_classes or holds(path, self.some_classes):
                return path
        found = find_class_folders(folder, self.some_classes)
        whole = [path for path in found if path.name.lower() not in PART_OF]
        if whole or (existing and not found):
            return whole[0] if whole else existing[0]
        name = type(self).__name__
        if (folder / f"split_zhou_{name}.json").exists() and contains_images(folder):
            return candidates[0]
        if not found:
            raise self.missing(folder.parent, *candidates)
        raise SortedCopyError(
            f"{name}: {folder} is a copy with class folders in {' and '.join(f'{path.name}/' for path in found)}, not "
            f"the published layout {self.layout}\n"
            f"  published split: {tool_command('prepare', name, folder.parent)} downloads it; images with "
            "their published names are then found" + self.as_own_data(found[0].parent)
        )

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
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{name}: the annotations in {folder} are damaged: {reason}. Download them again"
            ) from error
        return relocate(split, image_dir, folder, self.ignored_folders)

    def finish(
        self,
        cfg: CfgNode,
        split: Split,
        ready: bool = False,
        files_exist: bool = False,
        held_out: list[Datum] | None = None,
    ) -> None:
        """Check the split, draw the shots, choose base or new classes, and initialise the dataset.

        Args:
            cfg: DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES, DATASET.TEMPLATE and SEED.
            split: all items.
            ready: the files are known to exist and the shots are already drawn.
            files_exist: the files are known to exist.
            held_out: labelled images to choose hyper-parameters on; by default those of val.

        Raises:
            FileNotFoundError: the split lists files that do not exist.
            ValueError: the split is inconsistent, or DATASET.TEMPLATE is not a prompt.
        """
        name = type(self).__name__
        if template := setting(cfg, "DATASET.TEMPLATE"):
            self.template = check_template(template)
        try:
            check_split(*split, name, self.expected_classes)
        except ClassCountError as error:
            raise ValueError(
                f"{error}{self.as_own_data(Path(getattr(self, 'image_dir', self.dataset_dir)))}"
            ) from error
        if not ready and not files_exist:
            prepare = tool_command("prepare", name, Path(self.dataset_dir).parent)
            remedy = f"unpack them again ({prepare})" if self.sources else "restore them"
            check_files_exist([item.impath for items in split for item in items], name, remedy)
        self._compare_sizes(split, ready)
        if not ready:
            split = few_shot(split, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        classes = setting(cfg, "DATASET.SUBSAMPLE_CLASSES")
        if held_out is not None:
            held_out = subsample_lists([split.train, held_out], classes)[1]
        split = subsample_classes(split, classes)
        super().__init__(train_x=split.train, val=split.val, test=split.test)
        self.held_out = split.val if held_out is None else held_out
        self._note_small_numbers(cfg.DATASET.NUM_SHOTS, classes)

    def as_own_data(self, folder: Path) -> str:
        """The advice to train on the class folders in ``folder`` as one's own images; "" if there are none."""
        if not folder.is_dir() or not list_folders(folder):
            return ""
        return (
            f"\n  as it is: --dataset-config-file configs/datasets/image_folder.yaml --root {folder} (train.py), or "
            f"DATA={folder} and the dataset image_folder (scripts); its numbers are not comparable with published ones"
        )

    def _note_small_numbers(self, num_shots: int, classes: str) -> None:
        """Note classes with fewer images than shots, and so few classes that an accuracy says little."""
        if fewer := with_fewer_images(self.train_x or [], num_shots):
            counts = first_few(f"{classname} ({count})" for classname, count in fewer.items())
            self.note(
                f"{len(fewer)} of {self.num_classes} classes have fewer than {num_shots} training images, all of which "
                f"are used: {counts}"
            )
        which = "The dataset" if classes == "all" else f"The {classes} half"
        if self.num_classes == 1:
            self.note(f"{which} has one class only, {self.classnames[0]!r}: an accuracy of 100 % on it means nothing")
        elif self.num_classes == 2 and classes != "all":
            self.note(f"{which} has two classes only, {' and '.join(self.classnames)}: chance is 50 %")

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
