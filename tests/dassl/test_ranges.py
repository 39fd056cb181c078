"""The table of values that keys may have: complete, true to the code that reads the keys, and without false alarms."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from dassl.config import flatten, get_cfg_default, merge_file, merge_options
from dassl.config.checks import list_of, number, one_of, whole
from dassl.config.ranges import RANGES, declare_ranges, out_of_range
from dassl.data.samplers import AVAI_SAMPLERS
from dassl.data.transforms import AVAI_CHOICES, INTERPOLATION_MODES
from dassl.modeling.head.mlp import _ACTIVATIONS
from dassl.optim import AVAI_OPTIMS, AVAI_SCHEDS, build_lr_scheduler, build_optimizer
from tests.paths import ROOT
from train import default_cfg

DEFAULTS = default_cfg()


def problems(*options: object) -> list[str]:
    cfg = DEFAULTS.clone()
    merge_options(cfg, [str(option) for option in options])
    return out_of_range(cfg)


def test_every_key_has_a_row_and_every_default_passes() -> None:
    assert RANGES.keys() == dict(flatten(DEFAULTS)).keys()
    assert out_of_range(DEFAULTS) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[dt]*/**/*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_configs_passes(path: Path) -> None:
    cfg = DEFAULTS.clone()
    merge_file(cfg, path)
    assert out_of_range(cfg) == []


def test_upstreams_settings_pass() -> None:
    """From configs of upstream Dassl: lists and names that no file of ours has."""
    options = ["OPTIM.NAME", "sgd", "OPTIM.STEPSIZE", "[20]", "OPTIM.LR_SCHEDULER", "single_step"]
    options += ["DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN", "3"]
    options += ["INPUT.TRANSFORMS", "['random_flip', 'random_translation', 'normalize']", "INPUT.SIZE", "(32, 32)"]
    options += ["TRAINER.FIXMATCH.STRONG_TRANSFORMS", "['random_flip', 'randaugment_fixmatch', 'normalize', 'cutout']"]
    options += ["DATASET.SOURCE_DOMAINS", "['mnist', 'mnist_m']", "DATALOADER.K_TRANSFORMS", "2"]
    assert problems(*options) == []
    assert problems("OPTIM.LR_SCHEDULER", "multi_step", "OPTIM.STEPSIZE", "(10, 20)") == []


def test_names_are_those_that_the_code_knows() -> None:
    names = {
        "DATALOADER.TRAIN_X.SAMPLER": AVAI_SAMPLERS,
        "INPUT.TRANSFORMS": AVAI_CHOICES,
        "INPUT.INTERPOLATION": INTERPOLATION_MODES,
        "MODEL.HEAD.ACTIVATION": _ACTIVATIONS,
        "OPTIM.NAME": AVAI_OPTIMS,
        "OPTIM.LR_SCHEDULER": AVAI_SCHEDS,
    }
    for key, known in names.items():
        listed = (RANGES[key].__doc__ or "").rpartition("one of ")[2].split(", ")
        assert sorted(listed) == sorted(known), key


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        (
            "INPUT.SIZE",
            ["(224, 224, 3)", "(224,)", "()", "(0, 5)", "(-1, 5)", "(5.5, 5)", "('a', 5)", "(9999, 5)"],
            "2 en",
        ),
        ("INPUT.PIXEL_MEAN", ["[0.5, 0.5]", "[]", "['a', 0, 0]", "[1e999, 0, 0]", "[True, 0, 0]"], "3 entries"),
        ("INPUT.PIXEL_STD", ["[0.5, 0.5]", "[0, 1, 1]", "[-1, 1, 1]"], "3 entries, each a finite number above 0"),
        ("INPUT.RRCROP_SCALE", ["(1.0, 0.08)", "(-0.1, 1)", "(0.5,)", "(0, 1)", "(0.1, 1e999)", "(0.5, 2)"], "smaller"),
        ("INPUT.CROP_PADDING", [-1], "from 0"),
        ("INPUT.TRANSFORMS", ["['normalise']", "[1]", "[[]]"], "each one of"),
        ("INPUT.INTERPOLATION", ["bicubik"], r"did you mean bicubic"),
        ("INPUT.GB_K", [0, 4, -3], "odd"),
        ("INPUT.RGS_P", [1.5, -0.1, "1e999"], "to 1"),
        ("DATALOADER.K_TRANSFORMS", [0, -2], "from 1"),
        ("DATALOADER.CACHE_MB", [-1, 10**9], "machine's memory"),
        ("DATALOADER.NUM_WORKERS", [-1, 100_000], "from 0 to 256"),
        ("DATALOADER.TRAIN_X.BATCH_SIZE", [0, -8, 10**9], "from 1"),
        ("DATALOADER.TEST.BATCH_SIZE", [0, -8], "from 1"),
        ("DATALOADER.TEST.SAMPLER", ["SequentalSampler"], "did you mean SequentialSampler"),
        ("OPTIM.NAME", ["sdg", "SGD", ""], "one of adam"),
        ("OPTIM.LR", [0, -0.1, "1e999", "-1e999"], "above 0"),
        ("OPTIM.WEIGHT_DECAY", [-1e-4], "from 0"),
        ("OPTIM.MOMENTUM", [-0.1, 1, 5], "below 1"),
        ("OPTIM.GAMMA", [0, -1, 10], "above 0 and at most 1"),
        ("OPTIM.LR_SCHEDULER", ["cosin"], "did you mean cosine"),
        ("OPTIM.STEPSIZE", ["()", "('a',)", "(0,)", "(2.5,)", "(-3,)"], "at least 1 entries"),
        ("OPTIM.MAX_EPOCH", [-1, 10**9], "from 1"),
        ("OPTIM.WARMUP_EPOCH", [-5], "from 0"),
        ("OPTIM.WARMUP_TYPE", ["linaer"], "did you mean linear"),
        ("OPTIM.WARMUP_CONS_LR", [0, -1], "above 0"),
        ("DATASET.NUM_SHOTS", [0, -2, 10**9], r"from 1 to 1,000,000, or -1 \(all training images\)"),
        ("DATASET.SUBSAMPLE_CLASSES", ["bas", "novel"], "one of all, base, new"),
        ("DATASET.ON_BAD_IMAGE", ["ignore"], "one of error, skip"),
        ("DATASET.ROOT", ["a\0b"], "NUL"),
        ("SEED", [-5, -2, 2**32], r"or -1 \(not seeded\)"),
        ("TEST.SPLIT", ["train"], "one of val, test"),
        ("TEST.FINAL_MODEL", ["best"], "did you mean best_val"),
        ("TRAIN.PRINT_FREQ", [0, -1], "from 1"),
        ("TRAIN.CHECKPOINT_FREQ", [-1], "from 0"),
        ("MODEL.HEAD.DROPOUT", [1, -0.5, 3], "below 1"),
        ("TRAINER.MAPLE.N_CTX", [0, -2, 74, 100], "from 1 to 73"),
        ("TRAINER.MAPLE.PROMPT_DEPTH", [0, -1], "from 1"),
        ("TRAINER.MAPLE.PREC", ["fp8", "FP16"], "one of fp32, fp16, bf16, amp"),
        ("TRAINER.COOP.N_CTX", [0, 100], "from 1 to 73"),
        ("TRAINER.COOP.CLASS_TOKEN_POSITION", ["back"], "one of end, middle, front"),
        ("TRAINER.COCOOP.N_CTX", [0], "from 1"),
        ("TRAINER.VPT.N_CTX_VISION", [0], "from 1"),
        ("TRAINER.VPT.PROMPT_DEPTH_VISION", [0], "from 1"),
        ("TRAINER.IVLP.PROMPT_DEPTH_TEXT", [-1], "from 0"),
        ("TRAINER.ZSCLIP.PREC", ["half"], "one of fp32"),
    ],
)
def test_values_out_of_range_are_named_with_what_is_expected(key: str, values: list, expected: str) -> None:
    for value in values:
        (line,) = problems(key, value)
        assert line.startswith(f"{key}: "), line
        assert re.search(expected, line), line


def test_all_problems_are_listed_at_once() -> None:
    found = problems("OPTIM.LR", 0, "OPTIM.MAX_EPOCH", -1, "INPUT.SIZE", "(1,2,3)", "SEED", -5, "TRAINER.VPT.PREC", "x")
    assert sorted(line.split(":")[0] for line in found) == [
        *("INPUT.SIZE", "OPTIM.LR", "OPTIM.MAX_EPOCH", "SEED", "TRAINER.VPT.PREC")
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("OPTIM.LR_SCHEDULER", "multi_step"), r"OPTIM.STEPSIZE: \[-1\], expected ascending"),
        (("OPTIM.LR_SCHEDULER", "multi_step", "OPTIM.STEPSIZE", "(5, 3)"), r"ascending epochs"),
        (("OPTIM.LR_STEP", "iteration"), r"OPTIM.LR_STEP: iteration, expected OPTIM.LR_SCHEDULER cosine and"),
        (("OPTIM.NAME", "sgd", "OPTIM.SGD_NESTEROV", True, "OPTIM.MOMENTUM", 0), r"expected OPTIM.MOMENTUM above 0"),
        (
            ("INPUT.TRANSFORMS", "['gaussian_blur']", "INPUT.SIZE", "(8, 8)"),
            r"INPUT.GB_K: 21, expected less than twice",
        ),
    ],
)
def test_values_that_do_not_go_together(options: tuple, expected: str) -> None:
    (line,) = problems(*options)
    assert re.search(expected, line), line


def test_a_plugins_keys_are_checked_only_where_it_declares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = DEFAULTS.clone()
    cfg.TRAINER.OURS = CfgNode({"ALPHA": -3.0, "BETA": -3.0})
    assert out_of_range(cfg) == []
    monkeypatch.setitem(RANGES, "TRAINER.OURS.ALPHA", RANGES["SEED"])  # put back after the test
    declare_ranges("TRAINER.OURS", ALPHA=number(0))
    assert out_of_range(cfg) == ["TRAINER.OURS.ALPHA: -3.0, expected a finite number from 0"]


def test_the_page_lists_the_table() -> None:
    page = (ROOT / "docs" / "CONFIG.md").read_text(encoding="utf-8")
    upstreams = [name for name, node in get_cfg_default().TRAINER.items() if isinstance(node, CfgNode)]
    for key, default in flatten(DEFAULTS):
        row = f"| `{key}` | `{default!r}` | {RANGES[key].__doc__} |"
        assert row in page or (key.split(".")[1:2] and key.split(".")[1] in upstreams), row


def schedule(**options: object) -> LRScheduler:
    cfg = DEFAULTS.clone()
    merge_options(cfg, [word for key, value in options.items() for word in (f"OPTIM.{key}", value)])
    return build_lr_scheduler(build_optimizer([torch.nn.Parameter(torch.zeros(1))], cfg.OPTIM), cfg.OPTIM)


def test_a_warm_up_as_long_as_the_training_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for epochs, warmup, said in ((1, 5, True), (3, 3, True), (3, 2, False), (3, 0, False), (3, -1, False)):
        schedule(MAX_EPOCH=epochs, WARMUP_EPOCH=warmup)
        assert ("never reaches OPTIM.LR 0.0003" in capsys.readouterr().out) == said


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=4) | st.lists(SCALARS, max_size=4).map(tuple)


@given(st.sampled_from(sorted(RANGES)), ANYTHING)
def test_any_value_is_accepted_or_named(key: str, value: object) -> None:
    """A row never raises anything but voluptuous' Invalid, which `out_of_range` turns into a line."""
    cfg = CfgNode({"OPTIM": DEFAULTS.OPTIM.clone(), "INPUT": DEFAULTS.INPUT.clone()})
    *path, name = key.split(".")
    node = cfg
    for part in path:
        node = node.setdefault(part, CfgNode())
    node[name] = value
    lines = out_of_range(cfg)
    assert all(line.startswith(("OPTIM", "INPUT", key)) and ", expected " in line for line in lines)


@given(st.floats() | st.integers())
def test_numbers_are_those_within_the_bounds(value: float) -> None:
    def passes(check: object) -> bool:
        try:
            check(value)  # type: ignore[operator]
        except Exception:
            return False
        return True

    assert passes(number(0, below=1)) == (0 <= value < 1)
    assert passes(number(above=-2, high=3)) == (-2 < value <= 3)
    assert passes(whole(1, 5, or_else={-1: "all"})) == (isinstance(value, int) and value in (-1, 1, 2, 3, 4, 5))
    assert not passes(one_of("a")) and not passes(list_of(number()))
