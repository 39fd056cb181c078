"""DePT: golden values, what it learns and at which rates, and which classes the linear head is used for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import golden
from tests.paths import needs_golden
from tests.trainers.test_methods import NAMES, learned, vit_b16
from tests.trainers.test_on_base import make
from trainers.base import ClipTrainer
from trainers.checkpoint import rows_of

NODES = {"CoOp": "COOP", "KgCoOp": "KGCOOP", "MaPLe": "MAPLE"}


def golden_trainer(meta: dict[str, Any]) -> ClipTrainer:
    base = meta["base_trainer"]
    settings = {"TRAINER.DEPT.BASE": base, "TRAINER.DEPT.WEIGHT": meta["WEIGHT"]}
    of_base = {key: meta[key] for key in ("N_CTX", "CTX_INIT", "PROMPT_DEPTH", "W") if key in meta}
    settings |= {f"TRAINER.{NODES[base]}.{key}": value for key, value in of_base.items()}
    return golden.make_trainer({**meta, "trainer": "DePT"}, meta["dataset"], settings)


@pytest.mark.slow
@needs_golden
@pytest.mark.parametrize("file", ["dept_coop", "dept_kgcoop", "dept_maple_depth3"])
def test_three_steps_equal_golden(file: str) -> None:
    """Fused logits, both cross entropies and KgCoOp's term, two rates; afterwards the logits of other classes."""
    values, meta = golden.read(f"{file}.safetensors")
    trainer = golden_trainer(meta)
    assert trainer.registered_name == meta["registered_as"]
    assert [group["lr"] for group in trainer.optim.param_groups] == pytest.approx([0.01, meta["optim"]["lr_new"]])
    share = meta["WEIGHT"]
    golden.check_three_steps(trainer, values, meta, {"ce": 1 - share, "ce_lp": share, "score": meta.get("W", 0)})
    trainer.model.fused = False
    for state in ("logits3", "logits0"):
        with torch.no_grad():
            golden.assert_close(trainer.model.eval()(values["image"]), values[f"aux.{state}_new"], state)
        golden.load_parameters(trainer.model, values, "param0.")


def test_learns_these_tensors() -> None:
    """What the base learns, 4 E of FiLM and (E + 1) K of the head, at E = 512 and three classes."""
    names = {f"film_lp_{tower}.{kind}" for tower in ("img", "text") for kind in ("scale", "bias")}
    names |= {"linear_probe_proj.weight", "linear_probe_proj.bias"}
    for base, of_base in (("CoOp", 8_192), ("KgCoOp", 2_048), ("MaPLe", 3_555_072)):
        found = learned(golden.build("DePT", NAMES, vit_b16(), BASE=base))
        assert sum(found.values()) == of_base + 2_048 + 513 * 3
        assert set(found) == {*learned(golden.build(base, NAMES, vit_b16())), *names}
        assert "prompt_learner.ctx" in found
    model: Any = golden.build("DePT", NAMES, vit_b16(), BASE="CoOp")
    features = torch.randn(2, 512)
    assert torch.equal(model.film_lp_img(features), features) and torch.equal(model.film_lp_text(features), features)


def test_class_specific_contexts_are_refused() -> None:
    for base in ("CoOp", "KgCoOp"):
        with pytest.raises(ValueError, match=rf"one context for all classes: set TRAINER.{base.upper()}.CSC False"):
            golden.build("DePT", NAMES, vit_b16(), BASE=base, CSC=True)


def test_both_rates_follow_one_schedule(tmp_path: Path) -> None:
    """1e-5 for all in the warm-up epoch, then the cosine over four epochs: (1 + cos(pi e / 4)) / 2 of each rate."""
    options = {"OPTIM__WARMUP_EPOCH": 1, "OPTIM__MAX_EPOCH": 4, "OPTIM__LR": 0.0035}
    trainer = make("DePT", "CoOp", tmp_path, **options)
    base, new = trainer.optim.param_groups
    assert [p.shape for p in base["params"]] == [(4, 128)] and len(new["params"]) == 6
    rates = []
    for _ in range(4):
        rates.append((base["lr"], new["lr"]))
        trainer.optim.step()
        trainer.sched.step()
    shares = [1, 0.853553, 0.5]
    assert rates == [(1e-5, 1e-5), *(pytest.approx((0.0035 * s, 0.02275 * s), rel=1e-5) for s in shares)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipTrainer, Path]:
    """A checkpoint with a head for the base classes; nothing is at its initial value."""
    folder = tmp_path_factory.mktemp("dept")
    trainer = make("DePT", "CoOp", folder / "out")
    with torch.no_grad():
        for parameter in (p for p in trainer.model.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn_like(parameter))
    trainer.save_model(0, str(folder))
    return trainer, folder


def logits(trainer: ClipTrainer, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return trainer.model.eval()(image)


def with_classes(folder: Path, classnames: list[str], **options: Any) -> ClipTrainer:
    """A trainer on the base classes whose data set has these classes instead, in this order."""

    class Renamed(type(make("DePT", "CoOp", folder))):  # type: ignore[misc]
        def build_data_loader(self) -> None:
            super().build_data_loader()
            self.dm.dataset._classnames = classnames

    Renamed.__name__ = "DePT"
    return Renamed(make("DePT", "CoOp", folder, **options).cfg)


def test_the_head_is_used_for_the_classes_that_it_was_trained_on(saved, tmp_path: Path) -> None:
    """The same classes: all of it; some, or in another order: their rows; others: the similarity alone."""
    trainer, folder = saved
    names = list(trainer.dm.dataset.classnames)
    image = torch.randn(3, 3, 48, 48)
    expected = logits(trainer, image)
    again = make("DePT", "CoOp", tmp_path)
    again.load_model(str(folder), epoch=1)
    assert torch.equal(logits(again, image), expected)

    some = with_classes(tmp_path, [names[5], names[2], names[9]])
    some.load_model(str(folder), epoch=1)
    torch.testing.assert_close(logits(some, image), expected[:, [5, 2, 9]], rtol=1e-5, atol=1e-5)

    trainer.model.fused = False
    similarity = logits(trainer, image)
    trainer.model.fused = True
    assert not torch.allclose(similarity, expected, atol=1e-2)
    more = with_classes(tmp_path, [*names, "unicorn"])
    more.load_model(str(folder), epoch=1)
    torch.testing.assert_close(logits(more, image)[:, :-1], similarity, rtol=1e-5, atol=1e-5)


def test_new_classes_are_tested_without_the_head(saved, tmp_path: Path, capsys) -> None:
    trainer, folder = saved
    new = make("DePT", "CoOp", tmp_path, "new")
    own = new.model.linear_probe_proj.weight.detach().clone()
    new.load_model(str(folder), epoch=1)
    assert "the linear head is for other classes" in capsys.readouterr().out
    assert torch.equal(new.model.linear_probe_proj.weight, own)
    assert torch.equal(new.model.prompt_learner.ctx, trainer.model.prompt_learner.ctx)
    image = torch.randn(3, 3, 48, 48)
    similarity = new.model.logits(new.model.image_features(image), new.model.text_features())
    assert torch.equal(logits(new, image), similarity)


@pytest.mark.parametrize(("classes", "fused"), [("base", True), ("new", False), ("all", False)])
def test_a_published_file_does_not_say_its_classes(saved, tmp_path: Path, classes: str, fused: bool) -> None:
    """As many rows as classes, other than for the new ones: these classes. It holds the frozen CLIP, too."""
    trainer, _ = saved
    path = tmp_path / "PromptLearner" / "model.pth.tar-1"
    path.parent.mkdir()
    state = trainer.model.state_dict() | {"prompt_learner.token_prefix": torch.zeros(20, 1, 128)}
    torch.save({"state_dict": state, "epoch": 1}, path)
    tested = make("DePT", "CoOp", tmp_path / "out", classes)
    tested.load_model(str(tmp_path), epoch=1)
    assert tested.model.fused is fused
    if fused:
        image = torch.randn(3, 3, 48, 48)
        torch.testing.assert_close(logits(tested, image), logits(trainer, image))


def test_published_kgcoop_weights_have_idle_tensors(tmp_path: Path) -> None:
    trainer = make("DePT", "KgCoOp", tmp_path / "out")
    idle = {"bias_vectors": torch.zeros(1, 512), "meta_net.linear1.weight": torch.zeros(512, 512)}
    state = trainer.model.state_dict() | {f"prompt_learner.{name}": value for name, value in idle.items()}
    path = tmp_path / "PromptLearner" / "model.pth.tar-1"
    path.parent.mkdir()
    torch.save({"state_dict": state, "epoch": 1}, path)
    trainer.load_model(str(tmp_path), epoch=1)


def test_initial_weights_of_other_classes_leave_a_new_head_that_is_trained(saved, tmp_path: Path) -> None:
    trainer, folder = saved
    file = folder / "PromptLearner" / "model.pth.tar-1"
    new = make("DePT", "CoOp", tmp_path, "new", MODEL__INIT_WEIGHTS=file, OPTIM__MAX_EPOCH=1)
    assert torch.equal(new.model.prompt_learner.ctx, trainer.model.prompt_learner.ctx)
    own = new.model.linear_probe_proj.weight.detach().clone()
    new.train()
    assert new.model.fused and not torch.equal(new.model.linear_probe_proj.weight, own)


def test_a_head_with_other_rows_than_its_classes_is_refused(saved, tmp_path: Path) -> None:
    _, folder = saved
    state = torch.load(folder / "PromptLearner" / "model.pth.tar-1", weights_only=True)
    state["belongs_to"]["classes"] = [*state["belongs_to"]["classes"], "unicorn"]
    del state["tensor_crc32"]
    path = tmp_path / "PromptLearner" / "model.pth.tar-1"
    path.parent.mkdir()
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"belongs_to\.classes does not have a name for each row of linear_probe_proj"):
        make("DePT", "CoOp", tmp_path / "out").load_model(str(tmp_path), epoch=1)


def test_rows_of_equal_names_are_taken_in_turn() -> None:
    trained = ["missile", "cat", "missile", "dog"]
    assert rows_of(["dog", "cat"], trained) == [3, 1]
    assert rows_of(trained, trained) == [0, 1, 2, 3]
    assert rows_of(["missile"], trained) == [0]
    assert rows_of(["cat", "unicorn"], trained) is None
