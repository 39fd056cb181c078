"""Plans: what a YAML file asks for, as jobs."""

import pytest

from experiments import plans
from experiments.plans import jobs, read_plan

TABLE = """\
protocols: [base2new]
methods: [coop, maple]
datasets: [caltech101, dtd]
seeds: [1, 2, 3]
"""


def write(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return str(path)


def folders(tmp_path, text):
    return [job.run.folder for job in jobs(read_plan(write(tmp_path, text)))]


def test_a_table_is_a_training_and_a_test_for_every_method_dataset_and_seed(tmp_path):
    found = folders(tmp_path, TABLE)
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 3
    assert found[:2] == [
        "base2new/train_base/caltech101/shots_16/CoOp/vit_b16_ep100_ctxv1/seed1",
        "base2new/test_new/caltech101/shots_16/CoOp/vit_b16_ep100_ctxv1/seed1",
    ]


def test_a_test_comes_after_the_training_that_it_needs():
    for name in (path.stem for path in plans.FOLDER.glob("*.yaml")):
        seen = set()
        for job in jobs(read_plan(name)):
            assert job.needs is None or job.needs.folder in seen, job.folder
            seen.add(job.folder)


def test_a_method_without_training_is_tested_once(tmp_path):
    found = folders(tmp_path, TABLE.replace("coop, maple", "zsclip"))
    assert found == [
        f"base2new/{stage}/{dataset}/shots_16/ZeroshotCLIP/vit_b16/seed1"
        for dataset in ("caltech101", "dtd")
        for stage in ("train_base", "test_new")
    ]


def test_transfers_share_their_training(tmp_path):
    text = "protocols: [cross_dataset, domain_generalization]\nmethods: [maple]\nseeds: [1]\n"
    found = folders(tmp_path, text + "datasets: [imagenet, dtd, imagenet_a]\n")
    config = "vit_b16_c2_ep5_batch4_2ctx_cross_datasets_16shots"
    assert found == [
        f"imagenet/MaPLe/{config}/seed1",
        f"evaluation/MaPLe/{config}/dtd/seed1",
        f"evaluation/MaPLe/{config}/imagenet_a/seed1",
    ]


def test_every_combination_of_swept_values_has_a_folder_and_fixed_values_have_none(tmp_path):
    text = TABLE.replace("coop, maple", "maple").replace("[1, 2, 3]", "[1]").replace("caltech101, ", "") + (
        "options:\n  TRAINER.MAPLE.PROMPT_DEPTH: [1, 9]\n  TRAINER.MAPLE.N_CTX: [2, 4]\n  OPTIM.MAX_EPOCH: 3\n"
    )
    found = jobs(read_plan(write(tmp_path, text)))
    config = "base2new/train_base/dtd/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx"
    trained = [job for job in found if job.run.stage == "train_base"]
    assert [job.run.folder for job in trained] == [
        f"{config}/PROMPT_DEPTH_{depth}_N_CTX_{n_ctx}/seed1" for depth in (1, 9) for n_ctx in (2, 4)
    ]
    words = ["TRAINER.MAPLE.PROMPT_DEPTH", "9", "TRAINER.MAPLE.N_CTX", "2", "OPTIM.MAX_EPOCH", "3"]
    assert " ".join(words) in " ".join(trained[2].options)
    assert {job.run.method for job in found if "DEPTH_9_N_CTX_2" in job.folder} == {
        "MaPLe/vit_b16_c2_ep5_batch4_2ctx/PROMPT_DEPTH_9_N_CTX_2"
    }


def test_settings_of_another_trainer_are_left_out(tmp_path):
    found = folders(tmp_path, TABLE + "options: {TRAINER.MAPLE.PROMPT_DEPTH: [1, 2]}\n")
    assert len([folder for folder in found if "/MaPLe/" in folder]) == 24
    assert len([folder for folder in found if "/CoOp/" in folder]) == 12


def test_a_value_is_a_folder_name_whatever_its_characters(tmp_path):
    found = folders(tmp_path, TABLE + 'options: {MODEL.BACKBONE.NAME: [ViT-B/16, "../x y"]}\n')
    assert {folder.split("/")[-2] for folder in found} == {"NAME_ViT-B-16", "NAME_..-x-y"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("methods: [mapel]", ["methods: no 'mapel' (did you mean maple?)", "protocols: missing", "datasets: missing"]),
        ("protocol: [base2new]", ["protocol: no such entry (did you mean protocols?)"]),
        (TABLE + "shots: [0, x, 1.5]", ["shots: 0, 'x', 1.5; expected whole numbers from 1 on"]),
        (TABLE.replace("[1, 2, 3]", "[]"), ["seeds: an empty list"]),
        (TABLE.replace("coop, maple", "coop, coop"), ["methods: a value stands twice"]),
        (TABLE + "options: [OPTIM.LR]", ["options: ['OPTIM.LR']; expected settings such as"]),
        (TABLE + "options: {LR: 1}", ["options: LR: 1; expected a setting of train.py"]),
        (
            TABLE + "options: {OPTIM.MAX_EPOC: 3, OPTIM.LR: [1e-3, fast], OPTIM.NAME: sdg}",
            [
                "no setting 'OPTIM.MAX_EPOC' (did you mean OPTIM.MAX_EPOCH",
                "OPTIM.LR: 'fast', expected a finite number",
                "OPTIM.NAME: 'sdg', expected one of adam",
            ],
        ),
        ("- a", ["holds ['a'], expected keys"]),
        ("a: [", ["is not valid YAML"]),
        ("", ["holds nothing, expected keys"]),
        (TABLE + "seeds: [4]", ["is not valid YAML: seeds is set twice, in lines 4 and 5"]),
        (TABLE + "x: !!python/name:os.system", ["is not valid YAML"]),
    ],
)
def test_all_errors_of_a_plan_are_said_at_once(tmp_path, text, expected):
    with pytest.raises(ValueError) as error:
        read_plan(write(tmp_path, text))
    assert "plan.yaml" in str(error.value)
    for part in expected:
        assert part in str(error.value)


def test_an_unknown_plan_is_answered_with_the_closest():
    with pytest.raises(FileNotFoundError, match=r"no plan .*dmo\.yaml \(did you mean demo\?\)"):
        read_plan("dmo")
