"""Make the images and the split of the `Emoji` dataset: `python -m scripts.demo.make_dataset` (needs npm).

Classes are Unicode's emoji subcategories. Images are 3D emoji (Fluent), a style that the pretraining of ViT-Micro/8
never sees, in small scenes: a background, a pose, a shadow, a light. Rules, in order:

1. an emoji counts once (no skin tones); a subcategory is a class if it has at least `MIN_EMOJI` of them;
2. at most `MAX_EMOJI` per class are used, drawn at random;
3. `TRAIN_EMOJI` per class are for training, `VAL_EMOJI` for validation, all others for testing, so that no emoji is in
   two parts; each is placed in `SCENES` scenes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .packages import Emoji, fetch_packages, list_pictures, read_emoji, read_rgba

MIN_EMOJI, MAX_EMOJI = 16, 24
TRAIN_EMOJI, VAL_EMOJI = 8, 2
SCENES = 2
SIDE = 64  # pixels
SEED = 7


def choose_classes(emoji: list[Emoji]) -> dict[str, list[Emoji]]:
    """{class name: its emoji in random order}, classes in alphabetical order."""
    by_kind: dict[str, list[Emoji]] = {}
    for e in emoji:
        by_kind.setdefault(e.kind, []).append(e)
    rng = np.random.default_rng(SEED)
    chosen = {}
    for kind in sorted(k for k, members in by_kind.items() if len(members) >= MIN_EMOJI):
        members = by_kind[kind]
        chosen[kind] = [members[i] for i in rng.permutation(len(members))[:MAX_EMOJI]]
    return chosen


def draw_background(rng: np.random.Generator) -> Image.Image:
    """A plain colour, a gradient between two colours, or soft blobs of several."""
    cells = {"plain": (1, 1), "gradient": (2, 2), "blobs": (5, 5)}[rng.choice(["plain", "gradient", "blobs"])]
    colours = rng.integers(0, 256, size=(*cells, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def draw_scene(picture: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Place an RGBA picture on a background: pose, shadow, light."""
    side = round(SIDE * rng.uniform(0.65, 1.0))
    figure = Image.fromarray(picture).convert("RGBa").resize((side, side), Image.Resampling.LANCZOS)
    figure = figure.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True).convert("RGBA")
    room = SIDE - np.array(figure.size)
    left, top = (int(v) for v in np.round(room * rng.uniform(0.2, 0.8, size=2)))

    scene = draw_background(rng).convert("RGBA")
    shadow = Image.new("RGBA", (SIDE, SIDE))
    shade = figure.getchannel("A").point(lambda a: a // 3)
    shadow.paste((0, 0, 0, 255), (left + 2, top + 3), shade)
    scene.alpha_composite(shadow.filter(ImageFilter.GaussianBlur(2)))
    layer = Image.new("RGBA", (SIDE, SIDE))
    layer.paste(figure, (left, top))
    scene.alpha_composite(layer)

    light = rng.uniform(0.75, 1.15) * rng.uniform(0.85, 1.15, size=3)  # brightness times a tint
    pixels = np.asarray(scene.convert("RGB")) * light
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def part_of(rank: int) -> str:
    """The part of the split that the n-th emoji of a class belongs to."""
    if rank < TRAIN_EMOJI:
        return "train"
    return "val" if rank < TRAIN_EMOJI + VAL_EMOJI else "test"


def make_dataset(packages: Path, out: Path) -> None:
    """Write `images/<class>/<emoji>_<scene>.webp` and `split.json` into `out`."""
    pictures = list_pictures(packages, "fluent")
    classes = choose_classes([e for e in read_emoji(packages) if e.key in pictures])
    split: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for label, (kind, members) in enumerate(classes.items()):
        folder = kind.replace(" ", "_")
        (out / "images" / folder).mkdir(parents=True, exist_ok=True)
        for rank, e in enumerate(members):
            picture = read_rgba(pictures[e.key], 2 * SIDE)
            for scene in range(SCENES):
                name = f"{folder}/{e.key}_{scene}.webp"
                image = draw_scene(picture, np.random.default_rng([SEED, label, rank, scene]))
                image.save(out / "images" / name, quality=85, method=6)
                split[part_of(rank)].append((name, label, kind))
    lines = (f'"{part}": [\n' + ",\n".join(map(json.dumps, items)) + "\n]" for part, items in split.items())
    (out / "split.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    print({part: len(items) for part, items in split.items()}, f"{len(classes)} classes in {out}")


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=root / "build" / "emoji", help="unpacked npm packages")
    parser.add_argument("--out", type=Path, default=root / "datasets" / "emoji_data")
    args = parser.parse_args()
    fetch_packages(args.packages)
    make_dataset(args.packages, args.out)
