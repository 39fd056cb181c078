"""What ImageNet's four variants share: the class names, and one list of items that is training and test set."""

from pathlib import Path

from yacs.config import CfgNode

from datasets.base import ClipDataset
from datasets.imagenet import ImageNet
from datasets.listing import list_class_folders, read_classnames, to_items
from datasets.splits import Split
from datasets.validation import check_class_folders


class ImageNetVariant(ClipDataset):
    """A test set with ImageNet's classes, or some of them. Nothing trains on it: the training items are the test items.

    A subclass sets ``image_folder``; ``all_classes`` says whether every class must have a folder.
    """

    image_folder = ""
    all_classes = True

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.require(folder / self.image_folder)
        names_file = self.names_file(self.data_root(cfg))
        listing = list_class_folders(self.image_dir)
        classnames = self.folder_names(names_file)
        named = classnames if self.all_classes else {k: v for k, v in classnames.items() if k in listing}
        check_class_folders(list(listing), named, self.image_dir, names_file)
        items = to_items(self.image_dir, {name: listing[name] for name in named}, named)
        self.finish(cfg, Split(items, [], items), ready=True)

    def names_file(self, root: Path) -> Path:
        """The dataset's own ``classnames.txt``, or ImageNet's."""
        own = Path(self.dataset_dir) / "classnames.txt"
        names = (ImageNet.dataset_dir, *ImageNet.dir_aliases)
        return self.require(own, *(root / name / "classnames.txt" for name in names))

    def folder_names(self, names_file: Path) -> dict[str, str]:
        """{class folder: class name}, in the order of the labels."""
        return dict(sorted(read_classnames(names_file).items()))
