"""Two logs side by side, by hand."""

import json

import pytest

from experiments.__main__ import main
from experiments.logs import compare, read_log

PUBLISHED = """\
epoch [1/2] batch [1/2] time 1.184 (1.622) data 0.000 (0.3) loss 2.6523 (2.3535) acc 50.0000 (45.0000) lr 1.0000e-05
epoch [1/2] batch [2/2] time 0.184 (0.622) data 0.000 (0.3) loss 1.5000 (2.0761) acc 25.0000 (37.5000) lr 1.0000e-05
epoch [2/2] batch [2/2] time 0.184 (0.622) data 0.000 (0.3) loss 0.2500 (0.2500) acc 75.0000 (75.0000) lr 3.5000e-03
=> result
* total: 2,465
* correct: 2,100
* accuracy: 85.19%
"""
OLDER = """\
epoch [1/2][1/2]\ttime 1.1 (1.6)\tdata 0.000 (0.3)\teta 1:48:17\tloss 2.6523 (2.3535)\tacc 50.0 (45.0)\tlr 1.000000e-05
* accuracy: 85.2%
"""
OURS = """\
epoch [1/2] batch [1/2] time 9.9 (9.9) loss 2.6524 (2.35) ce 2.6524 (2.35) acc 50.0000 (45.0000) lr 1.0000e-05
epoch [1/2] batch [2/2] time 9.9 (9.9) loss 1.5300 (2.08) ce 1.5300 (2.08) acc 25.0000 (37.5000) lr 1.0000e-05
* accuracy: 84.19%
"""


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.txt").write_text(OURS)
    for name, text in (("published", PUBLISHED), ("older", OLDER)):
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def test_what_two_logs_share_is_compared_to_the_digits_that_they_print(logs):
    found = compare(read_log(logs / "published.txt"), read_log(logs / "run"))
    rows = {(row["epoch"], row["batch"], row["value"]): row for row in found["steps"]}
    assert len(rows) == 6  # loss, acc and lr of two steps
    assert rows[1, 1, "loss"]["equal"]  # 2.6523 and 2.6524 may both be roundings of 2.65235
    assert not rows[1, 2, "loss"]["equal"]
    assert found["values"]["loss"]["first_difference"]["batch"] == 2
    assert found["values"]["loss"]["largest_difference"] == pytest.approx(0.03)
    assert found["values"]["acc"]["first_difference"] is None
    assert found["tests"][0]["difference"] == pytest.approx(-1.0) and not found["tests"][0]["equal"]
    assert (found["only_theirs"], found["only_ours"]) == (1, 0)


def test_logs_of_earlier_versions_are_read(logs):
    older, published = read_log(logs / "older.txt"), read_log(logs / "published.txt")
    assert older.steps[1, 1] == {"loss": "2.6523", "acc": "50.0", "lr": "1.000000e-05"}
    found = compare(older, published)
    assert found["values"].keys() == {"loss", "acc", "lr", "accuracy"}
    assert all(of["first_difference"] is None for of in found["values"].values())  # 85.2 is 85.19 rounded


def test_a_loss_that_is_not_a_number_differs(tmp_path):
    for name, loss in (("a", "nan"), ("b", "1.0000"), ("c", "nan")):
        (tmp_path / name).write_text(f"epoch [1/1] batch [1/1] loss {loss} (1.0000) lr 1e-05\n")
    a, b, c = (read_log(tmp_path / name) for name in "abc")
    assert not compare(a, b)["steps"][0]["equal"] and compare(a, b)["values"]["loss"]["largest_difference"] is None
    assert compare(a, c)["steps"][0]["equal"]


def test_the_command_prints_both_sides_and_writes_all_of_it(logs, capsys):
    arguments = ["compare-log", str(logs / "published.txt"), str(logs / "run"), "--json", str(logs / "out.json")]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "epoch 1, batch 2: 1.5000 there, 1.5300 here" in out and "1 printed steps are in the other log only" in out
    assert json.loads((logs / "out.json").read_text())["values"]["loss"]["compared"] == 2
    assert main(["compare-log", str(logs / "run"), str(logs / "run/log.txt")]) == 0


@pytest.mark.parametrize("content", ["", "hello\n", "epoch [x/2] batch [1/2] loss 1 (1)\n"])
def test_a_file_that_is_no_log_is_named(tmp_path, capsys, content):
    (tmp_path / "log.txt").write_text(content)
    assert main(["compare-log", str(tmp_path / "log.txt"), str(tmp_path)]) == 2
    assert "log.txt holds no line of training such as" in capsys.readouterr().err
    assert main(["compare-log", str(tmp_path / "absent.txt"), str(tmp_path)]) == 2
