"""`soar-tf evaluate --shard` and `soar-tf merge`: the merged report is that of one process."""

import json
import re
import shlex

import numpy as np
import pytest

# In batches of one image, which batch an image is in cannot change its last bits.
BASE = tuple(
    shlex.split(
        "--attack fgsm --attack pgd3 --limit 20 --batch-size 1 --seed 3 --epsilon 0.2 "
        "--uint8 --curve --curve-attack fgsm --curve-minimum fmn:steps=5 "
        "--save-adversarial --corruptions"
    )
)


@pytest.fixture(scope="module")
def reports(tiny_run, tmp_path_factory):
    """The folders of a single process and of three shards, and the merged one."""
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    root = tmp_path_factory.mktemp("shards")

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    run("evaluate", tiny_run, *BASE, "--output", root / "whole")
    for k in (1, 2, 3):
        run("evaluate", tiny_run, *BASE, "--shard", f"{k}/3", "--output", root / str(k))
    printed = run("merge", root / "3", root / "1", root / "2", "--output", root / "merged")
    return root, printed


def untimed(path):
    """A report without times and environments."""
    report = json.loads((path / "report.json").read_text())
    del report["environment"]
    report.pop("shards", None)
    for attack in report["attacks"]:
        del attack["seconds"], attack["images_per_second"]
    return report


def test_the_merged_report_is_that_of_one_process(reports):
    root, printed = reports
    merged, whole = untimed(root / "merged"), untimed(root / "whole")
    assert merged == whole and list(merged) == list(whole)
    assert 0 < merged["worst_case_accuracy"] < merged["clean_accuracy"]
    assert (root / "merged/examples.csv").read_bytes() == (root / "whole/examples.csv").read_bytes()
    for name in ("examples.npz", "adversarial.npz"):
        with np.load(root / "merged" / name) as one, np.load(root / "whole" / name) as two:
            assert list(one) == list(two) and len(one["index"])
            for array in one:
                assert one[array].dtype == two[array].dtype
                np.testing.assert_array_equal(one[array], two[array])
    assert f"Report: {root / 'merged' / 'report.html'}" in printed.stdout


def test_the_pages_differ_in_times_and_machines_only(reports):
    root, _ = reports
    gallery = re.compile(r"<figure>.*</figure>", re.S)
    one, two = ((root / name / "report.html").read_text() for name in ("merged", "whole"))
    assert gallery.search(one)[0] == gallery.search(two)[0]
    page = (root / "merged/report.md").read_text()
    assert "Merged from 3 shards, computed on: " in page and "TensorFlow" in page
    environments = json.loads((root / "merged/report.json").read_text())["shards"]
    assert [entry["shard"] for entry in environments] == ["1/3", "2/3", "3/3"]
    assert all(entry["environment"]["versions"]["tensorflow"] for entry in environments)


def test_a_shard_says_that_it_is_one(reports):
    root, _ = reports
    report = json.loads((root / "2/report.json").read_text())
    assert report["n"] == 7 and report["shard"]["total"] == 20
    assert report["note"].startswith("This is shard 2/3, 7 of 20 images; soar-tf merge puts")
    with np.load(root / "2/examples.npz") as table:
        assert table["index"].tolist() == [1, 4, 7, 10, 13, 16, 19]


def test_a_json_file_alone(reports, tmp_path, run_cli):
    root, _ = reports
    sources = [root / "1/report.json", root / "2", root / "3"]
    found = run_cli("merge", *sources, "--output", tmp_path / "m.json", "--json").json
    assert json.loads((tmp_path / "m.json").read_text()) == found
    assert found["n"] == 20


def test_bad_shards_are_refused(reports, tiny_run, tmp_path, run_cli):
    root, _ = reports

    def check(sentence, *folders):
        output = tmp_path / "out"
        result = run_cli("merge", *folders, "--output", output, expect=2)
        assert sentence in result.stderr and not output.exists()

    one, two, three = (root / str(k) for k in (1, 2, 3))
    check("Missing: 3/3", one, two)
    check(f"2/3 twice: `report` {two} and `report` {two}", one, two, two, three)
    check(f"`report` {root / 'whole'} is of all images", one, root / "whole")
    check(f"`report` {tmp_path / 'none'} holds no report.json", tmp_path / "none")
    other = tmp_path / "other"
    run_cli("evaluate", tiny_run, *BASE, "--seed", "4", "--shard", "3/3", "--output", other)
    check(
        f"`report` {other} belongs to another evaluation than `report` {one}: seed differs "
        "(3 there, 4 here)",
        one,
        two,
        other,
    )
    data = (other / "shard.npz").read_bytes()
    (other / "shard.npz").write_bytes(data[: len(data) // 2])
    check("cannot be read as a shard", other)
    (other / "report.json").write_text('{"shard": 3}')
    check("cannot be read as a shard", other)


def test_what_shards_cannot_do_is_refused(tiny_run, tmp_path, run_cli):
    base = ("evaluate", tiny_run, "--attack", "fgsm", "--limit", "5", "--shard")
    output = ("--output", tmp_path / "out")
    for sentence, arguments in (
        ("--shard needs --output DIR", ("1/2",)),
        ("--shard needs --output DIR", ("1/2", "--output", tmp_path / "r.json")),
        ("`masking` judges all images together", ("1/2", "--masking", *output)),
        ("must be K/N, such as 3/8. Received: 'x'", ("x", *output)),
        ("at most as many shards as there are images, 5", ("1/6", *output)),
    ):
        assert sentence in run_cli(*base, *arguments, expect=2).stderr
    assert not (tmp_path / "out").exists()
