"""Every YAML file parses into the real config tree, says in its header what it is, and holds the published values."""

import json
from ast import literal_eval
from pathlib import Path

import pytest
import yaml
from yacs.config import CfgNode

from dassl.config import merge_file
from dassl.config.merge import flatten
from dassl.engine import TRAINER_REGISTRY
from tests.paths import PUBLISHED, ROOT, needs_published
from train import default_cfg

CONFIGS = ROOT / "configs"
FILES = sorted(path for kind in ("datasets", "trainers") for path in (CONFIGS / kind).rglob("*.yaml"))


def name(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def merged(path: Path) -> CfgNode:
    cfg = default_cfg()
    merge_file(cfg, path)
    return cfg


def published() -> dict[str, dict]:
    entries = json.loads((PUBLISHED / "configs.json").read_text(encoding="utf-8"))
    return {key: entry["values"] for key, entry in entries.items()}


def plain(value: object) -> object:
    """The published strings "1e-5" and "(224, 224)" are the values they spell; tuples and lists are alike."""
    if isinstance(value, str):
        try:
            value = literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", FILES, ids=name)
def test_parses_into_the_config_tree(path: Path) -> None:
    cfg = merged(path)
    if path.parent.name == "datasets":
        assert cfg.DATASET.NAME
    else:
        assert cfg.MODEL.BACKBONE.NAME
        assert path.parent.name in TRAINER_REGISTRY.registered_names()


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name != "datasets"], ids=name)
def test_states_how_to_run_it_its_table_and_its_number(path: Path) -> None:
    header = path.read_text(encoding="utf-8").split("DATALOADER:")[0]
    for word in ("# Run: ", "# Table: ", "# Number: "):
        assert word in header, f"{path} has no line '{word}'"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name != "datasets"], ids=name)
def test_testing_normalises_as_clip_was_trained(path: Path) -> None:
    """CLIP's own channel means and deviations; without "normalize" in the list the test transform has none."""
    cfg = merged(path)
    assert "normalize" in cfg.INPUT.TRANSFORMS
    assert cfg.INPUT.PIXEL_MEAN == [0.48145466, 0.4578275, 0.40821073]
    assert cfg.INPUT.PIXEL_STD == [0.26862954, 0.26130258, 0.27577711]
    assert cfg.INPUT.INTERPOLATION == "bicubic"


@needs_published
def test_every_published_config_is_here() -> None:
    assert not [key for key in published() if not (CONFIGS / key).is_file()]


PUBLISHED_FILES = [path for path in FILES if name(path) in published()] if PUBLISHED.is_dir() else []


@pytest.mark.parametrize("path", PUBLISHED_FILES, ids=name)
def test_holds_the_published_values(path: Path) -> None:
    values = published()[name(path)]
    found = dict(flatten(merged(path)))
    for key, value in flatten(values):
        assert plain(found[key]) == plain(value), key


@pytest.mark.parametrize("path", PUBLISHED_FILES, ids=name)
def test_adds_nothing_but_defaults_to_the_published_values(path: Path) -> None:
    """What a file spells out beyond the published keys is what the method's defaults are (CoOp's own node)."""
    known = dict(flatten(published()[name(path)]))
    defaults = dict(flatten(default_cfg()))
    for key, value in flatten(yaml.safe_load(path.read_text(encoding="utf-8"))):
        starts_from_words = key == "TRAINER.COOP.N_CTX" and known.get("TRAINER.COOP.CTX_INIT")
        if key not in known and not starts_from_words:
            assert plain(value) == plain(defaults[key]), key
