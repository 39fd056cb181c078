"""The emoji pictures that the demonstration is made from: three npm packages."""

import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# style -> (npm package, picture folder in it)
PACKAGES = {
    "noto": ("emoji-datasource-google@16.0.0", "img/google/64"),
    "twemoji": ("emoji-datasource-twitter@16.0.0", "img/twitter/64"),
    "fluent": ("@lobehub/fluent-emoji-3d@1.1.0", "assets"),
}

# Class names for subcategories whose Unicode name is not readable.
READABLE = {
    "alphanum": "letter or number",
    "animal-bird": "bird",
    "animal-bug": "insect",
    "animal-mammal": "mammal",
    "animal-marine": "sea creature",
    "av-symbol": "media button",
    "body-parts": "body part",
    "book-paper": "book",
    "clothing": "clothing item",
    "computer": "computer device",
    "country-flag": "country flag",
    "emotion": "emotion symbol",
    "event": "celebration",
    "face-concerned": "worried face",
    "face-neutral-skeptical": "skeptical face",
    "face-smiling": "smiling face",
    "face-unwell": "sick face",
    "food-asian": "asian dish",
    "food-fruit": "fruit",
    "food-prepared": "prepared meal",
    "food-sweet": "dessert",
    "food-vegetable": "vegetable",
    "geometric": "geometric shape",
    "hand-fingers-open": "open hand",
    "hotel": "hotel sign",
    "household": "household item",
    "keycap": "keypad key",
    "light & video": "lamp or camera",
    "mail": "mail item",
    "office": "office supply",
    "other-symbol": "symbol",
    "person": "portrait",
    "person-activity": "person doing an activity",
    "person-fantasy": "fantasy character",
    "person-gesture": "person making a gesture",
    "person-role": "worker",
    "person-sport": "athlete",
    "place-building": "building",
    "place-other": "attraction",
    "plant-flower": "flower",
    "plant-other": "plant",
    "religion": "religious symbol",
    "sky & weather": "weather",
    "sport": "sports equipment",
    "time": "clock",
    "transport-air": "aircraft",
    "transport-ground": "vehicle",
    "warning": "warning sign",
    "zodiac": "zodiac sign",
}


@dataclass(frozen=True)
class Emoji:
    """One emoji, in all styles."""

    key: str  # code points without the variation selector, as in "1f34e"
    names: tuple[str, ...]  # "red apple", "apple"
    subcategory: str
    category: str
    variants: tuple[str, ...]  # keys of its pictures: itself, then its skin tones

    @property
    def kind(self) -> str:
        """The readable subcategory: "fruit"."""
        return READABLE.get(self.subcategory, plain(self.subcategory))

    @property
    def group(self) -> str:
        """The readable category: "food and drink"."""
        return plain(self.category)


def plain(name: str) -> str:
    """Lower-case words: "FLAG-FOR_Oman & co" -> "flag for oman and co"."""
    return re.sub(r"[_\-\s]+", " ", name.lower().replace("&", "and")).strip()


def picture_key(filename: str) -> str:
    """Code points without the variation selector: "1F34E-FE0F.png" -> "1f34e"."""
    return filename.lower().rsplit(".", 1)[0].replace("-fe0f", "")


def fetch_packages(folder: Path) -> None:
    """Download (`npm pack`) and unpack the packages that `folder` lacks.

    Raises:
        FileNotFoundError: npm is not installed or could not fetch a package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, _) in PACKAGES.items():
        if (folder / name / "package").is_dir():
            continue
        command = ["npm", "pack", "--ignore-scripts", "--pack-destination", str(folder), package]
        try:
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise FileNotFoundError(
                f"{folder / name / 'package'} does not exist and `{' '.join(command)}` failed ({error}): install npm, "
                f"or unpack {package} into {folder / name} yourself"
            ) from error
        archive = folder / printed.split()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(folder / name, filter="data")
        archive.unlink()


def read_emoji(folder: Path) -> list[Emoji]:
    """All emoji in the packages' metadata, sorted by code points.

    Raises:
        FileNotFoundError: the metadata do not exist.
    """
    metadata = folder / "noto" / "package" / "emoji.json"
    if not metadata.is_file():
        raise FileNotFoundError(f"{metadata} does not exist: unpack {PACKAGES['noto'][0]} into {folder / 'noto'}")
    listed = []
    for entry in json.loads(metadata.read_text(encoding="utf-8")):
        if entry["subcategory"] == "skin-tone":
            continue
        files = [entry["image"]] + [v["image"] for v in entry.get("skin_variations", {}).values()]
        names = [entry["name"] or entry["short_name"], *entry["short_names"][:2]]
        listed.append(
            Emoji(
                key=picture_key(entry["image"]),
                names=tuple(dict.fromkeys(plain(n) for n in names)),
                subcategory=entry["subcategory"],
                category=entry["category"],
                variants=tuple(picture_key(f) for f in files),
            )
        )
    return sorted(listed, key=lambda e: e.key)


def list_pictures(folder: Path, style: str) -> dict[str, Path]:
    """{picture key: file} of one style.

    Raises:
        FileNotFoundError: the style's package is not unpacked.
    """
    package, inside = PACKAGES[style]
    pictures = folder / style / "package" / inside
    if not pictures.is_dir():
        raise FileNotFoundError(f"{pictures} does not exist: unpack {package} into {folder / style}")
    return {picture_key(p.name): p for p in sorted(pictures.iterdir())}


def read_rgba(path: Path, size: int) -> np.ndarray:
    """The picture as uint8 (size, size, 4), resized with premultiplied alpha."""
    with Image.open(path) as file:
        image = file.convert("RGBA")
    if image.size != (size, size):
        image = image.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")
    return np.asarray(image)
