"""Defaults, merging, and error messages."""

import ast
import json
import sys
import warnings

import pytest
from yacs.config import CfgNode

from dassl.config import clean_cfg, config_name, get_cfg_default, merge_file, merge_options, setting
from dassl.config.merge import flatten
from tests.paths import PUBLISHED, ROOT, needs_published


@pytest.fixture
def cfg():
    return get_cfg_default()


def merge_text(cfg, folder, text: str, name: str = "vit_b16.yaml") -> None:
    path = folder / name
    path.write_text(text)
    merge_file(cfg, path)


@needs_published
def test_defaults_are_the_published_ones(cfg) -> None:
    published = json.loads((PUBLISHED / "dassl_defaults.json").read_text())
    ours = {key: list(value) if isinstance(value, tuple) else value for key, value in flatten(cfg)}
    assert {key: ours.get(key, "missing") for key in published} == published
    own = {
        "DATASET.SUBSAMPLE_CLASSES",
        "DATASET.ON_BAD_IMAGE",
        "DATASET.TEMPLATE",
        "DATALOADER.CACHE_MB",
        "DATALOADER.FEATURES",
        "DATALOADER.TRAIN_U.DROP_LAST",
        "DATALOADER.TRAIN_X.DROP_LAST",
        "DEVICE",
        "INPUT.EXIF_ORIENTATION",
        "MODEL.BACKBONE.ACTIVATION",
        "MODEL.BACKBONE.PIXEL_MEAN",
        "MODEL.BACKBONE.PIXEL_STD",
        "OPTIM.ADAM_EPS",
        "OPTIM.LR_MIN",
        "OPTIM.LR_STEP",
        "OPTIM.STEPS_PER_SHOT",
        "PROTOCOL",
        "TEST.PREDICTIONS",
        "TRAIN.ACCUMULATE",
        "TRAIN.CHECKPOINT_TOWERS",
        "TRAIN.CUDA_GRAPH",
        "TRAIN.LABEL_SMOOTHING",
        "TRAIN.RANDOMNESS",
    }
    assert ours.keys() - published.keys() == own


def test_each_call_gives_a_new_tree(cfg) -> None:
    cfg.OPTIM.LR = 1.0
    assert get_cfg_default().OPTIM.LR == 0.0003


def test_values_take_the_type_of_the_default(cfg, tmp_path) -> None:
    merge_text(
        cfg,
        tmp_path,
        """
INPUT:
  SIZE: (336, 336)
  TRANSFORMS: ["random_flip", "normalize"]
  PIXEL_MEAN: (0.5, 0.5, 0.5)
OPTIM:
  LR: 1
  WARMUP_CONS_LR: 1e-5
  STEPSIZE: [3, 6]
DATASET:
  NAME: 101
""",
    )
    assert cfg.INPUT.SIZE == (336, 336)
    assert cfg.INPUT.TRANSFORMS == ("random_flip", "normalize")
    assert cfg.INPUT.PIXEL_MEAN == [0.5, 0.5, 0.5]
    assert cfg.OPTIM.LR == 1.0 and isinstance(cfg.OPTIM.LR, float)
    assert cfg.OPTIM.WARMUP_CONS_LR == 0.00001
    assert cfg.OPTIM.STEPSIZE == (3, 6)
    assert cfg.DATASET.NAME == "101"


def test_options(cfg) -> None:
    merge_options(
        cfg,
        ["MODEL.BACKBONE.NAME", "ViT-B/16", "DATASET.ROOT", "", "TRAINER.FIXMATCH.STRONG_TRANSFORMS", "['cutout']"],
    )
    merge_options(
        cfg, ["OPTIM.LR", "2e-3", "INPUT.SIZE", "(48, 48)", "SEED", "0", "USE_CUDA", "false", "TEST.NO_TEST", "True"]
    )
    assert (cfg.OPTIM.LR, cfg.INPUT.SIZE, cfg.SEED, cfg.USE_CUDA, cfg.TEST.NO_TEST) == (0.002, (48, 48), 0, False, True)
    assert (cfg.MODEL.BACKBONE.NAME, cfg.DATASET.ROOT) == ("ViT-B/16", "")
    assert cfg.TRAINER.FIXMATCH.STRONG_TRANSFORMS == ("cutout",)


def test_all_unknown_keys_are_in_one_error_with_the_closest(cfg, tmp_path) -> None:
    text = "OPTM:\n  LR: 0.1\nDATALOADER:\n  TRAIN_X:\n    BATCHSIZE: 4\nSEED: 3\n"
    with pytest.raises(ValueError) as caught:
        merge_text(cfg, tmp_path, text)
    message = str(caught.value)
    assert "vit_b16.yaml" in message
    assert "OPTM.LR: no such key (did you mean OPTIM.LR" in message
    assert "DATALOADER.TRAIN_X.BATCHSIZE: no such key (did you mean DATALOADER.TRAIN_X.BATCH_SIZE" in message
    assert cfg.SEED == -1, "nothing is merged from a file with errors"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["optim.lr", "1"], r"optim.lr: no such key \(did you mean OPTIM.LR"),
        (["DATASET.NUMSHOTS", "4"], "did you mean DATASET.NUM_SHOTS"),
        (["LR", "4"], "did you mean OPTIM.LR"),
        (["OPTIM.LR"], "come as pairs KEY VALUE, but there are 1 words"),
        (["OPTIM.LR", "fast"], "OPTIM.LR: takes a number such as 0.0003, not 'fast'"),
        (["OPTIM.MAX_EPOCH", "2.5"], "takes an integer such as 10, not '2.5'"),
        (["TEST.NO_TEST", "1"], "takes True or False"),
        (["OPTIM", "3"], "OPTIM: holds the keys NAME, LR"),
        (["SEED.X", "3"], "SEED.X: no such key"),
        (["INPUT.SIZE", "224"], "takes a list such as .224, 224., not '224'"),
        (["TRAINER.NEWNODE.X", "3"], "TRAINER.NEWNODE.X: no such key"),
        (["OPTIM.LR", "{'A': 1}"], "takes a value such as"),
    ],
)
def test_bad_options(cfg, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, options)


def test_a_file_may_add_a_plugins_node(cfg, tmp_path) -> None:
    text = 'TRAINER:\n  PROMPTSRC:\n    N_CTX_TEXT: 4\n    GPA: {MEAN: 15.0}\n    CTX_INIT: "a photo of a"\n'
    merge_text(cfg, tmp_path, text)
    assert cfg.TRAINER.PROMPTSRC.N_CTX_TEXT == 4
    assert cfg.TRAINER.PROMPTSRC.GPA.MEAN == 15.0
    merge_options(cfg, ["TRAINER.PROMPTSRC.N_CTX_TEXT", "8", "TRAINER.PROMPTSRC.PREC", "fp16"])
    assert (cfg.TRAINER.PROMPTSRC.N_CTX_TEXT, cfg.TRAINER.PROMPTSRC.PREC) == (8, "fp16")
    copy = cfg.clone()
    merge_options(copy, ["TRAINER.PROMPTSRC.DEPTH", "9"])
    assert "DEPTH" not in cfg.TRAINER.PROMPTSRC


@pytest.mark.parametrize("name", ["FIXMACH", "FIXMATHC", "FIXMATCS", "fixmatch", "FIXXMATCH"])
def test_a_trainer_node_that_looks_misspelt_warns(cfg, tmp_path, name) -> None:
    with pytest.warns(UserWarning, match=rf"vit_b16.yaml adds TRAINER.{name}, .* TRAINER.FIXMATCH:"):
        merge_text(cfg, tmp_path, f"TRAINER:\n  {name}:\n    WEIGHT_U: 2.0\n")
    assert cfg.TRAINER[name].WEIGHT_U == 2.0
    assert cfg.TRAINER.FIXMATCH.WEIGHT_U == 1.0


@pytest.mark.parametrize(("name", "near"), [("XCOOP", "COOP"), ("DCOOP", "COOP"), ("XMAPLE", "MAPLE")])
def test_plugin_nodes_one_letter_from_ours_warn_and_merge(cfg, tmp_path, name, near) -> None:
    cfg.TRAINER.COOP, cfg.TRAINER.MAPLE = CfgNode({"N_CTX": 16}), CfgNode({"N_CTX": 2})
    with pytest.warns(UserWarning, match=rf"TRAINER.{name}, .* TRAINER.{near}:"):
        merge_text(cfg, tmp_path, f"TRAINER:\n  {name}:\n    N_CTX: 4\n")
    assert cfg.TRAINER[name].N_CTX == 4


@pytest.mark.parametrize("name", ["FIXMATCH2", "FIXMATCH_TEXT", "KGCOOP", "MMA", "TCP", "OURS", "DEPT"])
def test_a_clearly_new_trainer_node_does_not_warn(cfg, tmp_path, name) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge_text(cfg, tmp_path, f"TRAINER:\n  {name}:\n    ALPHA: 0.5\n")
    assert cfg.TRAINER[name].ALPHA == 0.5


def test_known_trainer_nodes_are_closed(cfg, tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"TRAINER.FIXMATCH.WEIGHTU: no such key \(did you mean TRAINER.FIXMATCH.WEIGHT_U"
    ):
        merge_text(cfg, tmp_path, "TRAINER:\n  FIXMATCH:\n    WEIGHTU: 2.0\n")
    with pytest.raises(ValueError, match=r"TRAINER\.MODAL: no such key"):
        merge_text(cfg, tmp_path, "TRAINER:\n  MODAL: classification\n")
    with pytest.raises(ValueError, match=r"LOSS\.ALPHA: no such key"):
        merge_text(cfg, tmp_path, "LOSS:\n  ALPHA: 1.0\n")


def test_a_missing_file_lists_the_others_in_its_folder(cfg, tmp_path) -> None:
    (tmp_path / "rn50.yaml").touch()
    (tmp_path / "vit_b32.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"The YAML files in .*: rn50.yaml, vit_b32.yaml"):
        merge_file(cfg, tmp_path / "vit_b16.yaml")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds rn50.yaml"):
        merge_file(cfg, tmp_path / "MaPLe" / "x" / "vit_b16.yaml")


@pytest.mark.parametrize("text", ["OPTIM: [1, 2", "just words", ""])
def test_a_file_without_keys(cfg, tmp_path, text) -> None:
    with pytest.raises(ValueError, match=r"vit_b16.yaml (is not valid YAML|holds)"):
        merge_text(cfg, tmp_path, text)


def test_name_of_the_trainers_file(cfg, tmp_path) -> None:
    assert config_name(cfg) is None
    (tmp_path / "datasets").mkdir()
    merge_text(cfg, tmp_path, "SEED: 1\n")
    merge_text(cfg, tmp_path / "datasets", "DATASET:\n  NAME: X\n", "x.yaml")
    assert config_name(cfg.clone()) == "vit_b16"


def test_clean_cfg_keeps_one_trainer(cfg) -> None:
    clean_cfg(cfg, "FixMatch")
    assert set(cfg.TRAINER) == {"NAME", "FIXMATCH"}


def test_setting_is_the_trees_value_or_the_default() -> None:
    tree = CfgNode({"DATASET": {"NUM_SHOTS": 4, "ON_BAD_IMAGE": "skip"}})
    assert setting(tree, "DATASET.NUM_SHOTS") == 4
    assert setting(tree, "DATASET.ON_BAD_IMAGE") == "skip"
    assert setting(tree, "DATASET.SUBSAMPLE_CLASSES") == "all"
    assert setting(tree, "DATALOADER.CACHE_MB") == 2048
    assert setting(tree, "PROTOCOL") == ""
    with pytest.raises(KeyError, match="ON_BAD_IMAGES"):
        setting(tree, "DATASET.ON_BAD_IMAGES")


def test_the_configuration_needs_neither_torch_nor_numpy() -> None:
    """Scripts that only read a configuration must start in well under a second."""
    light = {*sys.stdlib_module_names, "voluptuous", "yaml", "yacs"}
    for path in sorted((ROOT / "dassl" / "config").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert name.startswith(("dassl.config", "dassl.utils.names")) or name.split(".")[0] in light, (
                    f"{path.name} imports {name}"
                )
