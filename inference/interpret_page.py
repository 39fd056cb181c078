"""The page on what a run has learned, with its pictures and the same as JSON and text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch

from dassl.utils import atomic_write, write_json
from trainers.backbone import load_clip
from trainers.prompted_clip import FrozenTowersCLIP

from .classifier import Classifier
from .export_bundle import describe_transform, public_name
from .interpret_attention import Attention, attention_maps
from .interpret_features import FEWEST, Encoded, confusions, encode, recorded_pairs, tsne
from .interpret_plots import attention_figure, map_figure, png, shown_picture
from .interpret_words import (
    MOST_CLASSES,
    Near,
    Tokens,
    distance_between_words,
    learned_tokens,
    nearest,
    words_of_vocabulary,
)
from .labelled import Labelled, evenly, pictures_or_reason

MOST_CONFUSED = 15
SHOWN_BLOCKS = 4
PREDICTIONS = "predictions.csv"


@dataclass(frozen=True)
class Options:
    """What the page has.

    Attributes:
        images: a folder of pictures; None for the run's test images.
        words: nearest ones of a token.
        metric: euclidean or cosine.
        most_images: in the maps of features.
        attention: pictures with attention.
        blocks: of the image tower; None for four of them.
    """

    images: str | None = None
    words: int = 5
    metric: str = "euclidean"
    most_images: int = 500
    attention: int = 4
    blocks: Sequence[int] | None = None


def interpret(classifier: Classifier, folder: Path, options: Options) -> str:
    """Write index.html, its PNGs, interpret.json and words.txt; returns the text.

    Raises:
        ValueError: the model is not one that this project builds, or there is no such block.
    """
    model = classifier.trainer.model
    if not isinstance(model, FrozenTowersCLIP):
        raise ValueError(
            f"what {classifier.trainer_name} has learned cannot be shown: its model is a {type(model).__name__}"
        )
    pictures, reason = pictures_or_reason(classifier, options.images)
    page: dict[str, Any] = {
        "trainer": classifier.trainer_name,
        "dataset": classifier.run.cfg.DATASET.NAME,
        "backbone": public_name(classifier.run.cfg.MODEL.BACKBONE.NAME),
        "classes": len(classifier.classnames),
        "metric": options.metric,
        **_words(classifier, model, options),
    }
    drawn: dict[str, bytes] = {}
    page |= _attention(classifier, model, evenly(pictures, options.attention), options, reason, drawn)
    encoded = encode(classifier, model, evenly(pictures, options.most_images)) if pictures else None
    page |= _maps(classifier, encoded, reason, drawn)
    page |= _confused(classifier, encoded, reason)
    text = as_text(page)
    _write(folder, page, drawn, text)
    return text


def _words(classifier: Classifier, model: FrozenTowersCLIP, options: Options) -> dict[str, Any]:
    groups = learned_tokens(model, classifier.classnames)
    if not groups:
        note = f"{classifier.trainer_name} learns no text tokens, so that there are none to compare with words."
        return {"tokens": [], "words_note": note, "word_distance": None}
    vocabulary = load_clip(classifier.run.cfg).token_embedding.weight.detach().float()
    words = words_of_vocabulary()[: len(vocabulary)]
    vocabulary = vocabulary[: len(words)]
    found = [
        (group, nearest(group.vectors.cpu(), vocabulary, words, options.words, options.metric)) for group in groups
    ]
    note = ""
    if any(group.classname for group in groups) and len(classifier.classnames) > MOST_CLASSES:
        count = len(classifier.classnames)
        note = f"Each class has tokens of its own; those of the first {MOST_CLASSES} of {count} are shown."
    return {
        "tokens": [_group(group, near) for group, near in found],
        "words_note": note,
        "word_distance": distance_between_words(vocabulary),
    }


def _group(group: Tokens, near: list[list[Near]]) -> dict[str, Any]:
    rows = zip(group.positions, group.vectors.norm(dim=1).tolist(), near, strict=True)
    return {
        "block": group.block,
        "classname": group.classname,
        "tokens": [{"position": p, "norm": norm, "nearest": [asdict(one) for one in of]} for p, norm, of in rows],
    }


def _maps(classifier: Classifier, encoded: Encoded | None, reason: str, drawn: dict[str, bytes]) -> dict[str, Any]:
    """The maps of features before and after the training."""
    if encoded is None:
        return {"maps": [], "maps_note": f"Not drawn: {reason}."}
    if len(encoded.pictures) < FEWEST:
        return {"maps": [], "maps_note": f"Not drawn: a map needs at least {FEWEST} pictures."}
    known = all(one.label is not None for one in encoded.pictures)
    labels = [one.label if known else label for one, label in zip(encoded.pictures, encoded.predicted, strict=True)]
    names = [classifier.classnames[label] for label in labels if label is not None]
    colors = (
        "Colors are the true classes." if known else "Colors are the predicted classes, as the true ones are not known."
    )
    stages = [("before", "zero-shot CLIP", encoded.before)]
    if encoded.changed:
        stages.append(("after", classifier.trainer_name, encoded.after))
    else:
        colors += f" {classifier.trainer_name} does not change the features of images, so that there is one map."
    points = {stage: tsne(features) for stage, _, features in stages}
    for stage, title, _ in stages:
        drawn[f"features-{stage}.png"] = png(map_figure(points[stage], names, title))
    return {
        "maps": [f"features-{stage}.png" for stage, _, _ in stages],
        "maps_note": f"{len(names)} pictures. {colors}",
        "points": [
            {"image": one.path, "class": name, **{stage: values[i].tolist() for stage, values in points.items()}}
            for i, (one, name) in enumerate(zip(encoded.pictures, names, strict=True))
        ],
    }


def _attention(
    classifier: Classifier,
    model: FrozenTowersCLIP,
    pictures: list[Labelled],
    options: Options,
    reason: str,
    drawn: dict[str, bytes],
) -> dict[str, Any]:
    if not pictures:
        return {"attention": [], "attention_note": f"Not drawn: {reason or 'no pictures were asked for'}."}
    images = torch.stack([classifier.reader(one.path) for one in pictures])
    try:
        with classifier.trainer.precision.autocast():
            maps = attention_maps(model, images.to(classifier.device))
    except ValueError as error:
        return {"attention": [], "attention_note": f"Not drawn: {error}."}
    blocks = _chosen(maps, options.blocks)
    transform = describe_transform(classifier.run.cfg)
    found = []
    for i, one in enumerate(pictures):
        shown = shown_picture(images[i], transform["mean"], transform["std"])
        name = f"attention-{i + 1}.png"
        drawn[name] = png(attention_figure(shown, i, blocks))
        label = "" if one.label is None else classifier.classnames[one.label]
        found.append({"file": name, "image": Path(one.path).name, "class": label})
    prompted = any(attention.of_prompts is not None for attention in maps)
    note = "The mean over the heads; bright is much. Each map has its own scale."
    note += (
        " In the last block only the class token is computed." if prompted else " The image tower has no prompt tokens."
    )
    return {"attention": found, "attention_note": note}


def _chosen(maps: list[Attention], blocks: Sequence[int] | None) -> list[tuple[int, Attention]]:
    if blocks is None:
        last, count = len(maps) - 1, min(SHOWN_BLOCKS, len(maps))
        blocks = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
    if wrong := [block for block in blocks if block >= len(maps)]:
        raise ValueError(f"--blocks {wrong[0]}: the image tower has the blocks 0 to {len(maps) - 1}")
    return [(block, maps[block]) for block in blocks]


def _confused(classifier: Classifier, encoded: Encoded | None, reason: str) -> dict[str, Any]:
    recorded = recorded_pairs(classifier.run.folder / PREDICTIONS)
    if recorded is not None:
        pairs, source = recorded, f"the run's own test ({PREDICTIONS})"
    elif encoded is not None:
        names = classifier.classnames
        both = zip(encoded.pictures, encoded.predicted, strict=True)
        pairs = [(names[one.label], names[label]) for one, label in both if one.label is not None]
        source = "these pictures"
    else:
        return {"confused": [], "confused_note": f"Not known: {reason}, and the run has no {PREDICTIONS}."}
    if not pairs:
        return {"confused": [], "confused_note": "Not known: the pictures have no labels (a folder for each class)."}
    wrong = sum(true != predicted for true, predicted in pairs)
    note = f"{wrong} of {len(pairs)} images of {source} were taken for another class."
    return {"confused": [one._asdict() for one in confusions(pairs, MOST_CONFUSED)], "confused_note": note}


def as_text(page: dict[str, Any]) -> str:
    """The words and the confused classes, for a terminal."""
    lines = [f"{page['trainer']} on {page['dataset']}, {page['backbone']}, {page['classes']} classes", ""]
    for group in page["tokens"]:
        lines.append(heading(group))
        for token in group["tokens"]:
            words = "  ".join(f"{one['word']} {one['euclidean']:.3f}/{one['cosine']:.2f}" for one in token["nearest"])
            lines.append(f"  {token['position']:>3}: {words}")
    if page["tokens"]:
        lines.append(f"word, Euclidean distance/cosine; a word's nearest other word is at {page['word_distance']:.3f}")
    lines += [line for line in (page["words_note"],) if line]
    lines += ["", f"Confused classes: {page['confused_note']}"]
    lines += [f"  {one['true']} -> {one['predicted']}: {one['times']} of {one['images']}" for one in page["confused"]]
    return "\n".join(lines)


def heading(group: dict[str, Any]) -> str:
    """Which tokens a group is."""
    where = "Tokens at the input" if group["block"] == 0 else f"Tokens before block {group['block']}"
    return f"{where}, of the class {group['classname']}" if group["classname"] else where


def _write(folder: Path, page: dict[str, Any], drawn: dict[str, bytes], text: str) -> None:
    """The page last: its pictures are inside it, and beside it as files."""
    for name, content in drawn.items():
        with atomic_write(folder / name) as file:
            file.write(content)
    with atomic_write(folder / "words.txt", "w") as file:
        file.write(text + "\n")
    write_json(page, folder / "interpret.json")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    embedded = {name: f"data:image/png;base64,{base64.b64encode(content).decode()}" for name, content in drawn.items()}
    html = environment.get_template("interpret.html.j2").render(page=page, embedded=embedded, heading=heading)
    with atomic_write(folder / "index.html", "w") as file:
        file.write(html)
