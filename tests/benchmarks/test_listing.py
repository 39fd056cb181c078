"""The comparison of listing and checking in two checkouts. No speed is asserted."""

from benchmarks import listing


def test_the_two_steps_are_timed_on_a_tree_of_its_own(capsys):
    listing.main(["--folders", "3", "--files", "10", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 folders with 30 files, median of 1 processes:"
    assert [line.split()[:2] for line in lines[1:]] == [["list", "here"], ["check", "here"]]


def test_both_sides_take_turns(tmp_path, monkeypatch, capsys):
    order = []

    def timed(checkout, root):
        order.append(checkout)
        return {"list": 2.0, "check": 1.0} if checkout == tmp_path else {"list": 1.0, "check": 1.5}

    monkeypatch.setattr(listing, "timed", timed)
    listing.main(["--folders", "1", "--files", "1", "--rounds", "2", "--against", str(tmp_path)])
    assert order == [listing.HERE, tmp_path, listing.HERE, tmp_path]
    out = capsys.readouterr().out
    assert "list   here 1.000 s  against 2.000 s  (-50.0%)" in out and "(+50.0%)" in out
