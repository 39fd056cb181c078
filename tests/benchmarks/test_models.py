"""The benchmarks of models: both sides are equal, and what they write holds what it promises. No speed is asserted."""

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import trainers.conditional
from benchmarks import cocoop, scaling, step
from benchmarks.models import TOKEN_LENGTHS, class_names, made_up_names, random_clip
from benchmarks.timing import (
    agreement,
    comparison_parser,
    deviation,
    evaluation,
    training_step,
)
from clip.simple_tokenizer import SimpleTokenizer
from trainers.precision import Precision

MEASURED = {"ours", "definitional", "ratio", "agreement"}
SIDE = {"seconds", "all_seconds", "peak_bytes"}
CIRCUMSTANCES = {"settings", "device", "threads", "torch"}
EQUAL = 1e-5  # of the largest value: fp32 sums in another order
TINY = ["--backbone", "ViT-Micro/8", "--device", "cpu", "--classes", "3", "--batch", "2", "--test-batch", "3"]


def both_sides(classes: int) -> tuple[cocoop.ObservedCLIP, cocoop.DefinitionalCoCoOp]:
    """CoCoOp over a small random CLIP whose biases and LayerNorms are away from their initial values."""
    torch.manual_seed(1)
    clip_model = random_clip("ViT-Micro/8")
    for parameter in clip_model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    learner = cocoop.ConditionalPromptLearner(class_names(classes), clip_model, 4, "a photo of a")
    ours = cocoop.ObservedCLIP(clip_model, learner)
    return ours, cocoop.DefinitionalCoCoOp(ours, clip_model)


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=EQUAL * theirs.abs().max().item())


@pytest.mark.parametrize("tokens", [None, 40])
def test_cocoop_equals_the_loop_over_images(monkeypatch, tokens):
    """Logits and gradients, at once and in pieces of 40 tokens that are recomputed in the backward pass."""
    ours, theirs = both_sides(classes=12)
    if tokens:
        monkeypatch.setattr(trainers.conditional, "tokens_that_fit", lambda *args, **kwargs: tokens)
    image, label = torch.randn(3, 3, 48, 48), torch.tensor([0, 5, 11])
    gradients = []
    for model in (ours, theirs):
        cross_entropy(model(image), label).backward()
        gradients.append([p.grad for p in ours.parameters() if p.requires_grad])
        ours.zero_grad()
    assert ours.last_cut["recomputed"] == bool(tokens)
    assert_equal(*gradients)
    with torch.no_grad():
        assert_equal([ours(image)], [theirs(image)])


def test_gradients_of_images_one_at_a_time_add_up_to_the_batch():
    ours, _ = both_sides(classes=4)
    image, label = torch.randn(3, 3, 48, 48), torch.tensor([0, 1, 3])
    precision = Precision("fp32", torch.device("cpu"))
    cross_entropy(ours(image), label).backward()
    expected = [p.grad for p in ours.parameters() if p.requires_grad]
    for images_at_once in (1, 2, 3):
        assert_equal(training_step(ours, precision, image, label, images_at_once)(), expected)


def test_agreement_is_the_worst_of_all_tensors():
    found = [torch.tensor([1.0, 2.0]), torch.tensor([100.0])]
    expected = [torch.tensor([1.0, -4.0]), torch.tensor([110.0])]
    assert agreement(found, expected) == {"largest": 110.0, "difference": 10.0, "relative": 6 / 4}


def test_deviation_is_that_of_all_tensors_as_one_vector():
    """Differences 3 and 4, expected values 6 and 8: √(9 + 16) / √(36 + 64)."""
    found = [torch.tensor([9.0, 0.0]), torch.tensor([12.0], dtype=torch.bfloat16)]
    assert deviation(found, [torch.tensor([6.0, 0.0]), torch.tensor([8.0])]) == 0.5


def test_made_up_names_have_imagenet_s_lengths_and_share_no_tokens():
    encoded = [SimpleTokenizer().encode(name) for name in made_up_names()]
    counts = [sum(len(tokens) == length for tokens in encoded) for length in range(1, len(TOKEN_LENGTHS) + 1)]
    assert tuple(counts) == TOKEN_LENGTHS
    together = [token for tokens in encoded for token in tokens]
    assert len(set(together)) == len(together)


def result_of(main, path: Path, *options: str) -> dict:
    main([*TINY, "--repeats", "1", "--json", str(path), *options])
    assert list(path.parent.iterdir()) == [path]
    return json.loads(path.read_text())


def assert_measured(measured: dict) -> None:
    assert measured.keys() >= MEASURED
    assert measured["ours"].keys() == measured["definitional"].keys() == SIDE
    assert measured["agreement"]["relative"] < 10 * EQUAL  # plain random weights, four blocks deep


def test_step_writes_what_it_promises(tmp_path, capsys):
    depth = ("TRAINER.MAPLE.PROMPT_DEPTH", "4")
    result = result_of(step.main, tmp_path / "step.json", "--eval-batches", "2", *depth)
    measured = {"training_step", "evaluation_2x2", "evaluation_1x3"}
    assert set(result) == CIRCUMSTANCES | {"text_tokens", "logits", "profile"} | measured
    shares = [row["share"] for row in result["profile"]]
    assert shares == sorted(shares, reverse=True) and 0.1 < sum(shares) <= 1
    assert result["settings"]["backbone"] == "ViT-Micro/8"
    assert result["text_tokens"]["definitional"] == 3 * 77
    assert {"largest", "difference"} <= set(result["logits"])
    out = capsys.readouterr().out
    for name in measured:
        assert_measured(result[name])
        assert f"{name}: ours " in out


def test_several_measurements_are_made_one_after_the_other(tmp_path, capsys):
    """VPT's published depth of 12 does not fit four blocks, which is recorded, and the others are made."""
    path = tmp_path / "steps.json"
    words = ("--classes", "3,4", "--definitional-repeats", "0", "--eval-batches", "0", "--trainer", "vpt,coop")
    runs = result_of(step.main, path, *words)["runs"]
    assert [(r["settings"]["method"], r["settings"]["classes"]) for r in runs] == [
        *(("vpt", 3), ("vpt", 4)),
        *(("coop", 3), ("coop", 4)),
    ]
    assert all(r["error"].startswith("ValueError: prompt depth 12 does not fit") for r in runs[:2])
    for r in runs[2:]:
        assert set(r) == CIRCUMSTANCES | {"text_tokens", "training_step", "evaluation_1x3"}
        assert set(r["training_step"]) == {"ours"} and set(r["training_step"]["ours"]) == SIDE
    assert "vpt" in capsys.readouterr().out


def test_the_difference_from_fp32_is_that_of_the_precision_alone():
    """bf16 rounds to 8 bits, 2⁻⁹; fp32 gives the same numbers, also after what is learned has changed."""
    found = {}
    for prec in ("fp32", "bf16"):
        words = [*TINY, "--prec", prec]
        args = comparison_parser("").parse_args(words)
        comparison = step.TrainerComparison(Namespace(**vars(args), method="coop", options=[]))
        with torch.no_grad():
            comparison.ours.prompt_learner.ctx += 0.1
        found[prec] = comparison.against_fp32(2)
    assert found["fp32"] == {"logits": 0.0, "gradients": 0.0}
    assert all(2**-9 < value < 0.3 for value in found["bf16"].values())


def test_a_value_that_is_none(capsys):
    with pytest.raises(SystemExit):
        step.main(["--prec", "fp32,fp8"])
    assert "'fp8' is not one of fp32, fp16, bf16, amp" in capsys.readouterr().err


def test_the_line_is_that_of_least_squares():
    """Of (0, 1), (1, 2), (2, 6): slope Σ(x - 1)(y - 3) / Σ(x - 1)² = 5/2, 3 - 5/2, R² = 1 - (3/2) / 14."""
    found = scaling.line([0, 1, 2], [1, 2, 6])
    assert found == pytest.approx({"fixed": 0.5, "slope": 2.5, "r2": 1 - 1.5 / 14})
    assert scaling.line_text("tokens", {"fixed": 0.5, "slope": 0.002, "r2": 1}) == (
        "0.50 s + 2000.00 ms per 1,000 tokens, R² 1.000"
    )


def test_steps_of_all_class_counts_take_turns(tmp_path, capsys, monkeypatch):
    plot, order = tmp_path / "plot.png", []
    measure = scaling.TrainerComparison.step

    def observed(self, model, *words):
        work = measure(self, model, *words)
        return lambda: (order.append(self.args.classes), work())[1]

    monkeypatch.setattr(scaling.TrainerComparison, "step", observed)
    words = ["--backbone", "ViT-Micro/8", "--device", "cpu", "--batch", "2", "--trainer", "coop", "--repeats", "2"]
    path = tmp_path / "scaling.json"
    scaling.main([*words, "--classes", "2,3", "--definitional", "3", "--json", str(path), "--plot", str(plot)])
    assert order == [2, 3, 3, 2, 3, 3, 2]  # first steps and the definitional one, then forth and back
    result = json.loads(path.read_text())
    assert set(result) == CIRCUMSTANCES | {"steps", "lines"}
    rows = result["steps"]
    assert [row["classes"] for row in rows] == [2, 3] and "definitional" in rows[1] and "definitional" not in rows[0]
    assert all(len(row["all_seconds"]) == 2 and row["seconds"] == min(row["all_seconds"]) for row in rows)
    line = result["lines"]["classes"]  # two points are on it
    assert math.isclose(line["fixed"] + 3 * line["slope"], rows[1]["seconds"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "ms per class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("coop", ()),
        ("vpt", ("TRAINER.VPT.PROMPT_DEPTH_VISION", "4")),
        ("independent-vlp", ("TRAINER.IVLP.PROMPT_DEPTH_VISION", "4", "TRAINER.IVLP.PROMPT_DEPTH_TEXT", "4")),
        ("coprompt", ("TRAINER.COPROMPT.PROMPT_DEPTH", "4")),
        ("kgcoop", ()),
        ("tcp", ("TRAINER.TCP.INSERT_LAYER", "2")),
        ("mmrlpp", ("TRAINER.MMRLpp.REP_LAYERS", "[2, 4]")),
    ],
)
def test_a_step_of_every_method_equals_its_definition(tmp_path, method: str, options: tuple):
    """Both sides have the gradients of the method's own loss."""
    result = result_of(step.main, tmp_path / "step.json", "--trainer", method, *options)
    assert_measured(result["training_step"])
    assert result["settings"]["method"] == method


def test_fixed_texts_are_computed_once_before_the_steps():
    """Those of VPT on each side, whose evaluation forgets them; learned ones in every step."""
    passes = {}
    for method, options in (("VPT", ["TRAINER.VPT.PROMPT_DEPTH_VISION", "2"]), ("CoOp", [])):
        args = comparison_parser("").parse_args([*TINY, "--classes", "3"])
        comparison = step.TrainerComparison(Namespace(**vars(args) | {"method": method, "classes": 3}, options=options))
        calls = []
        comparison.ours.text_encoder.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        evaluation(comparison.ours, comparison.precision, [comparison.images(2)])()
        works = [
            comparison.step(m, comparison.images(2), comparison.labels(2), 2)
            for m in (comparison.ours, comparison.theirs)
        ]
        calls.clear()
        for _ in range(2):
            for work in works:
                work()
        passes[method] = len(calls)
    assert passes["VPT"] == 0 and passes["CoOp"] > 0


def test_cocoop_writes_what_it_promises(tmp_path, monkeypatch, capsys):
    """If only a single token fits, each piece is one image and one class."""
    monkeypatch.setattr(trainers.conditional, "tokens_that_fit", lambda *args, **kwargs: 1)
    result = result_of(cocoop.main, tmp_path / "cocoop.json")
    pieces = {"training_step_batch1": 3, "training_step_batch2": 2 * 3, "evaluation_1x3": 3 * 3}
    assert set(result) == CIRCUMSTANCES | {"text_tokens_per_image"} | set(pieces)
    assert result["text_tokens_per_image"]["definitional"] == 3 * 77
    out = capsys.readouterr().out
    for name, count in pieces.items():
        assert_measured(result[name])
        again = name.startswith("training_step")
        assert result[name]["pieces"] == {"count": count, "images_at_once": 1, "recomputed": again}
        assert f"ours in {count} pieces, {'recomputed' if again else 'nothing recomputed'}" in out
