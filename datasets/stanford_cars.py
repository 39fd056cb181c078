"""Stanford Cars (Krause et al., 2013): 196 cars by make, model and year."""

from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.listing import list_class_folders, to_items
from datasets.matlab import read_structures, read_texts
from datasets.sources import HUB_COPY, Source, split_source, tool_command
from datasets.splits import Split, split_trainval
from datasets.validation import check_class_folders, relative_path


@DATASET_REGISTRY.register()
class StanfordCars(ClipDataset):
    """Stanford Cars. Its Stanford URLs are dead; these layouts of mirrors are recognised.

    ``cars_train/cars_train/`` (one folder too many), ``car_ims/`` with ``cars_annos.mat``, and class folders in
    ``car_data/{train,test}/`` or ``{train,test}/``.
    """

    dataset_dir = "stanford_cars"
    dir_aliases = ("stanford-cars", "StanfordCars", "cars")
    layout = (
        "stanford_cars/{cars_train/, cars_test/, split_zhou_StanfordCars.json "
        "(or devkit/, cars_test_annos_withlabels.mat)}"
    )
    expected = (6509, 1635, 8041)
    expected_classes = 196
    hub_copy = HUB_COPY
    sources = (
        Source("cars_train.tgz", gives="cars_train", urls=("http://ai.stanford.edu/~jkrause/car196/cars_train.tgz",)),
        Source("cars_test.tgz", gives="cars_test", urls=("http://ai.stanford.edu/~jkrause/car196/cars_test.tgz",)),
        Source(
            "car_devkit.tgz",
            gives="devkit",
            urls=("https://ai.stanford.edu/~jkrause/cars/car_devkit.tgz",),
            instead=("split_zhou_StanfordCars.json",),
        ),
        Source(
            "cars_test_annos_withlabels.mat",
            gives="cars_test_annos_withlabels.mat",
            urls=("http://ai.stanford.edu/~jkrause/car196/cars_test_annos_withlabels.mat",),
            instead=("split_zhou_StanfordCars.json",),
        ),
        split_source("StanfordCars", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        if (folder / "car_ims").is_dir():  # other file numbers: the published split does not list these files
            self.on_published_split = False
            print(f"{folder}/car_ims: accuracies on its split are not comparable with published ones")
            split = self.split_from_one_list(self.require(folder / "cars_annos.mat"))
        else:
            split = self.published_split(folder, self.build_split)
        self.finish(cfg, split)

    def build_split(self) -> Split:
        """The split from class folders or else the annotations, with a fifth of train for validation."""
        folder = Path(self.dataset_dir)
        trees = [folder / place for place in ("car_data/car_data", "car_data", "")]
        tree = next((tree for tree in trees if (tree / "train").is_dir() and (tree / "test").is_dir()), None)
        if tree is not None:
            return self.split_from_class_folders(tree)
        kits = [folder / place for place in ("devkit", "car_devkit/devkit", "")]
        meta = self.require(*(kit / "cars_meta.mat" for kit in kits))
        train_annos = self.require(*(kit / "cars_train_annos.mat" for kit in kits))
        name = "cars_test_annos_withlabels.mat"
        test_annos = self.require(folder / name, *(kit / name for kit in kits))
        train, val = split_trainval(self.read_data("cars_train", train_annos, meta))
        return Split(train, val, self.read_data("cars_test", test_annos, meta))

    def read_data(self, image_dir: str, anno_file: Path, meta_file: Path) -> list[Datum]:
        """The items of an annotation file: ``fname`` and ``class`` (from 1) of every image."""
        names = read_texts(meta_file, "class_names")
        rows = read_structures(anno_file, "annotations", {"class": int, "fname": str})
        return [self._item(names, row["class"], f"{image_dir}/{row['fname']}", anno_file) for row in rows]

    def split_from_one_list(self, anno_file: Path) -> Split:
        """The split from ``cars_annos.mat``: ``relative_im_path``, ``class`` (from 1) and ``test`` of every image."""
        names = read_texts(anno_file, "class_names")
        rows = read_structures(anno_file, "annotations", {"class": int, "relative_im_path": str, "test": int})
        parts: tuple[list[Datum], list[Datum]] = ([], [])
        for row in rows:
            parts[row["test"] != 0].append(self._item(names, row["class"], row["relative_im_path"], anno_file))
        train, val = split_trainval(parts[0])
        return Split(train, val, parts[1])

    def _item(self, names: list[str], number: int, path: str, anno_file: Path) -> Datum:
        if not 1 <= number <= len(names):
            raise ValueError(f"{anno_file}: {path} has the class {number}, but there are {len(names)} class names")
        path = f"{self.dataset_dir}/{relative_path(path, str(anno_file))}"
        return Datum(path, number - 1, classname=year_first(names[number - 1]))

    def split_from_class_folders(self, tree: Path) -> Split:
        """The split from ``train/<class>/`` and ``test/<class>/``, labelled in the order of the sorted folders."""
        prepare = tool_command("prepare", type(self).__name__, Path(self.dataset_dir).parent)
        print(
            f"{tree}: the labels follow the sorted class folders, which is not the published order: base and new "
            f"classes are not the published ones. {prepare} downloads the published split"
        )
        listings = [list_class_folders(tree / part) for part in ("train", "test")]
        names = {folder: year_first(folder) for folder in listings[0]}
        check_class_folders(list(listings[1]), names, tree / "test", tree / "train")
        train, test = (
            to_items(tree / part, {folder: listing[folder] for folder in names}, names)
            for part, listing in zip(("train", "test"), listings, strict=True)
        )
        return Split(*split_trainval(train), test)


def year_first(name: str) -> str:
    """``BMW 3 Series Sedan 2012`` → ``2012 BMW 3 Series Sedan``."""
    words, _, year = name.rpartition(" ")
    return f"{year} {words}"
