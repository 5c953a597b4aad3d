"""Scores that other versions or weights of a metric's package computed."""

import json


def computed_by(folder, metric, **made_with):
    path = folder / "scores.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["scores"][metric]["made_with"] = made_with
    path.write_text(json.dumps(content), encoding="utf-8")


def test_seeds_that_were_scored_in_several_ways_have_no_mean(make, layout, refused):
    for seed, release in enumerate(("1.0", "1.1")):
        computed_by(make("vcd", "1100", seed=seed), "closed/paper", package=release)
    what, why, do = refused(layout())
    assert what == "closed/paper of vcd on phantom was computed in several ways"
    assert why.startswith("By package 1.0 in results/runs/phantom/toy/vcd/")
    assert "; package 1.1 in results/runs/phantom/toy/vcd/" in why
    assert do == "Score the runs alike: medbench rescore RUNS --metric closed/paper"
    assert refused()[0] == what


def test_rows_that_were_scored_in_several_ways_are_told(make, layout, shown):
    computed_by(make("greedy", "1100"), "closed/paper", package="1.0", weights="ab" * 32)
    folder = make("vcd", "1110")
    told = "closed/paper was computed in several ways, which alone may move it: "
    told += "package 1.0, weights abababab; not told. medbench rescore RUNS --metric closed/paper"
    assert told in shown(layout())
    computed_by(folder, "closed/paper", package="1.0", weights="ab" * 32)
    assert "several ways" not in shown(layout())
