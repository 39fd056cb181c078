"""A miniature of every published layout: a few tiny pictures, the original annotation formats.

Each builder writes one dataset under a root and returns the full split that a correct parser finds, as
{part: [(path below the dataset's folder, label, class name)]}, where the annotations fix it (else None).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tests.datasets.layouts import pictures

Items = list[tuple[str, int, str]]
WNIDS = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}


def class_folders(folder: Path, names: list[str], count: int = 10, suffix: str = ".jpg") -> None:
    for name in names:
        pictures(folder / name, [f"{name}_{i:04d}{suffix}" for i in range(1, count + 1)])


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def struct_array(rows: list[dict[str, Any]]) -> np.ndarray:
    """A 1 × n MATLAB struct array."""
    array = np.zeros((1, len(rows)), dtype=[(key, object) for key in rows[0]])
    for i, row in enumerate(rows):
        for key, value in row.items():
            array[0, i][key] = value
    return array


def caltech101(root: Path) -> None:
    names = ["BACKGROUND_Google", "Faces_easy", "Faces", "Leopards", "Motorbikes", "airplanes", "accordion"]
    class_folders(root / "caltech-101" / "101_ObjectCategories", names)


def dtd(root: Path) -> None:
    class_folders(root / "dtd" / "images", ["banded", "blotchy", "braided"])


EUROSAT_FOLDERS = [
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
]


def eurosat(root: Path) -> None:
    class_folders(root / "eurosat" / "2750", EUROSAT_FOLDERS)


def food101(root: Path) -> None:
    class_folders(root / "food-101" / "images", ["apple_pie", "baby_back_ribs", "waffles"])


def oxford_pets(root: Path) -> dict[str, Items]:
    folder = root / "oxford_pets"
    breeds = [("Abyssinian", 1), ("american_bulldog", 2), ("Maine_Coon", 3)]
    lines: dict[str, list[str]] = {"trainval": ["#Image CLASS-ID SPECIES BREED ID"], "test": []}
    items: dict[str, Items] = {"trainval": [], "test": []}
    for name, label in breeds:
        for number in range(1, 16):
            part = "trainval" if number <= 10 else "test"
            lines[part].append(f"{name}_{number} {label} 1 1")
            items[part].append((f"images/{name}_{number}.jpg", label - 1, name.lower()))
        pictures(folder / "images", [f"{name}_{number}.jpg" for number in range(1, 16)])
    for part, content in lines.items():
        write_lines(folder / "annotations" / f"{part}.txt", content)
    return items


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW 3 Series Sedan 2012"]


def car_annotations(part: str, count: int) -> tuple[np.ndarray, Items]:
    rows, items = [], []
    for number in range(1, count + 1):
        label = (number - 1) % len(CARS)
        fname = f"{number:05d}.jpg"
        rows.append({"bbox_x1": 1, "class": label + 1, "fname": fname})
        words = CARS[label].split(" ")
        items.append((f"{part}/{fname}", label, " ".join([words[-1], *words[:-1]])))
    return struct_array(rows), items


def stanford_cars(root: Path, nested: bool = False) -> dict[str, Items]:
    folder = root / "stanford_cars"
    items = {}
    for part, count, target in (
        ("cars_train", 30, folder / "devkit" / "cars_train_annos.mat"),
        ("cars_test", 6, folder / "cars_test_annos_withlabels.mat"),
    ):
        annotations, items[part] = car_annotations(part, count)
        target.parent.mkdir(parents=True, exist_ok=True)
        savemat(target, {"annotations": annotations})
        pictures(folder / part / part if nested else folder / part, [Path(item[0]).name for item in items[part]])
    names = np.array([CARS], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    return {"trainval": items["cars_train"], "test": items["cars_test"]}


def oxford_flowers(root: Path) -> None:
    folder = root / "oxford_flowers"
    labels = [1 + i % 3 for i in range(30)]
    pictures(folder / "jpg", [f"image_{i:05d}.jpg" for i in range(1, 31)])
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    names = {"1": "pink primrose", "2": "hard-leaved pocket orchid", "3": "canterbury bells"}
    (folder / "cat_to_name.json").write_text(json.dumps(names))


def fgvc_aircraft(root: Path) -> dict[str, Items]:
    folder = root / "fgvc_aircraft"
    variants = ["707-320", "727-200", "Boeing 717"]
    write_lines(folder / "variants.txt", variants)
    items: dict[str, Items] = {}
    for start, part in enumerate(("train", "val", "test")):
        numbers = [f"{1000 * start + i:07d}" for i in range(6)]
        items[part] = [(f"images/{n}.jpg", i % 3, variants[i % 3]) for i, n in enumerate(numbers)]
        write_lines(folder / f"images_variant_{part}.txt", [f"{Path(p).stem} {name}" for p, _, name in items[part]])
        pictures(folder / "images", [Path(p).name for p, _, _ in items[part]])
    return items


SCENES = {"/a/abbey": "abbey", "/a/airplane_cabin": "airplane_cabin", "/c/church/indoor": "indoor church"}


def sun397(root: Path, lists: str = "", images: str = "SUN397") -> dict[str, Items]:
    folder = root / "sun397"
    write_lines(folder / lists / "ClassName.txt", list(SCENES))
    items: dict[str, Items] = {}
    for part, name, count in (("trainval", "Training_01.txt", 10), ("test", "Testing_01.txt", 4)):
        paths = [f"{scene}/sun_{part[:2]}{i:04d}.jpg" for scene in SCENES for i in range(count)]
        write_lines(folder / lists / name, paths)
        pictures(folder / images, [path[1:] for path in paths])
        scene_of = {path: path.rpartition("/")[0] for path in paths}
        order = list(SCENES)
        items[part] = [(f"{images}{path}", order.index(scene_of[path]), SCENES[scene_of[path]]) for path in paths]
    return items


ACTIONS = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "Archery": "Archery", "YoYo": "Yo_Yo"}


def ucf101(root: Path) -> dict[str, Items]:
    folder = root / "ucf101"
    lists = folder / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", [f"{i} {name}" for i, name in enumerate(ACTIONS, start=1)])
    items: dict[str, Items] = {}
    for part, name, groups in (("trainval", "trainlist01.txt", range(8, 18)), ("test", "testlist01.txt", range(1, 4))):
        lines, items[part] = [], []
        for label, (action, readable) in enumerate(ACTIONS.items()):
            for group in groups:
                video = f"v_{action}_g{group:02d}_c01"
                lines.append(f"{action}/{video}.avi" + (f" {label + 1}" if part == "trainval" else ""))
                items[part].append((f"UCF-101-midframes/{readable}/{video}.jpg", label, readable))
        write_lines(lists / name, lines)
        pictures(folder, [path for path, _, _ in items[part]])
    return items


def classnames(folder: Path, names: dict[str, str] | None = None) -> None:
    write_lines(folder / "classnames.txt", [f"{wnid} {name}" for wnid, name in (names or WNIDS).items()])


def imagenet(root: Path) -> None:
    for part in ("train", "val"):
        class_folders(root / "imagenet" / "images" / part, list(WNIDS), 3, ".JPEG")
    classnames(root / "imagenet")


def imagenetv2(root: Path) -> dict[str, Items]:
    folder = root / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    names = {f"n{i:08d}": f"class {i}" for i in range(12)}  # 10 sorts before 2 as text
    class_folders(folder, [str(i) for i in range(12)], 1, ".jpeg")
    classnames(root / "imagenetv2", names)
    return {"test": [(f"{folder.name}/{i}/{i}_0001.jpeg", i, f"class {i}") for i in range(12)]}


def imagenet_variant(root: Path, place: str, wnids: list[str]) -> dict[str, Items]:
    """The layout of Sketch, A and R, with ImageNet's class names in `imagenet/`."""
    folder = root / place
    class_folders(folder, wnids, 2, ".JPEG")
    (folder / "README.txt").write_text("not a class")
    classnames(root / "imagenet")
    return {
        "test": [
            (f"{folder.name}/{wnid}/{wnid}_{i:04d}.JPEG", label, WNIDS[wnid])
            for label, wnid in enumerate(wnids)
            for i in (1, 2)
        ]
    }
