"""A dataset file in the way that users of Dassl write them: split file, pickled few-shot cache, base and new."""

import os
import pickle

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import listdir_nohidden, mkdir_if_missing

from .dtd import DescribableTextures as DTD
from .oxford_pets import OxfordPets

NEW_NAMES = {"daffodil": "yellow daffodil"}


@DATASET_REGISTRY.register()
class Flowers17(DatasetBase):
    dataset_dir = "flowers17"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, "images")
        self.split_path = os.path.join(self.dataset_dir, "split_Flowers17.json")
        self.split_fewshot_dir = os.path.join(self.dataset_dir, "split_fewshot")
        mkdir_if_missing(self.split_fewshot_dir)

        if os.path.exists(self.split_path):
            train, val, test = OxfordPets.read_split(self.split_path, self.image_dir)
        else:
            train, val, test = DTD.read_and_split_data(self.image_dir, ignored=["weeds"], new_cnames=NEW_NAMES)
            OxfordPets.save_split(train, val, test, self.split_path, self.image_dir)

        num_shots = cfg.DATASET.NUM_SHOTS
        if num_shots >= 1:
            seed = cfg.SEED
            preprocessed = os.path.join(self.split_fewshot_dir, f"shot_{num_shots}-seed_{seed}.pkl")
            if os.path.exists(preprocessed):
                with open(preprocessed, "rb") as file:
                    data = pickle.load(file)
                    train, val = data["train"], data["val"]
            else:
                train = self.generate_fewshot_dataset(train, num_shots=num_shots)
                val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
                with open(preprocessed, "wb") as file:
                    pickle.dump({"train": train, "val": val}, file, protocol=pickle.HIGHEST_PROTOCOL)

        subsample = cfg.DATASET.SUBSAMPLE_CLASSES
        train, val, test = OxfordPets.subsample_classes(train, val, test, subsample=subsample)
        super().__init__(train_x=train, val=val, test=test)


@DATASET_REGISTRY.register()
class WildPets(DatasetBase):
    dataset_dir = "wild_pets"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        trainval = self.read_data("trainval")
        test = self.read_data("test")
        train, val = OxfordPets.split_trainval(trainval)
        super().__init__(train_x=train, val=val, test=test)

    def read_data(self, part):
        items = []
        folder = os.path.join(self.dataset_dir, part)
        for label, name in enumerate(listdir_nohidden(folder, sort=True)):
            for image in listdir_nohidden(os.path.join(folder, name)):
                items.append(Datum(impath=os.path.join(folder, name, image), label=label, classname=name))
        return items
