"""Which tasks and which variants the tables compare."""

import numpy as np
import pytest
from fake_results import metrics, write_variant

from plasticity_jax.analysis import groups, report, results, tables


def _found(folder):
    return groups.split(results.load(folder))


@pytest.fixture
def sparse(tmp_path):
    """Final scores of tasks 2, 4 and 6 of "done" and of 2 and 4 of "running", whose fifth task is under way."""
    for name, slope, tasks in (("done", 0.1, 6), ("running", 0.05, 5)):
        dataset = metrics(slope)
        dataset["final_accuracy"][:, 0::2] = np.nan
        write_variant(tmp_path / name, dataset.where(dataset["task"] < tasks), state=name)
    return tmp_path


def test_first_and_last_task_are_those_that_have_a_score(sparse):
    done, running = tables.summary(_found(sparse))
    assert [(r["first"], r["last"], r["tasks"]) for r in (done, running)] == [(2, 6, 6), (2, 4, 5)]
    np.testing.assert_allclose([done[k].mean for k in ("first task", "change")], [0.8, -0.4], atol=0.02)
    np.testing.assert_allclose([running[k].mean for k in ("last task", "change")], [0.75, -0.1], atol=0.02)
    (difference,) = tables.differences(_found(sparse))
    assert (difference["first"], difference["last"], difference["pairs"]) == (2, 4, 8)
    np.testing.assert_allclose(difference["change"].mean, 0.1, atol=0.02)


def test_the_tasks_of_a_table_are_named(sparse):
    both = "First and last task that have a final score: 2 and 6 (done); 2 and 4 (running)."
    pair = "First and last task that have a final score: 2 and 4."
    page, text = report.write(sparse).read_text(encoding="utf-8"), report.text(sparse)
    for said in (both, pair):
        assert said in page and said in text


def test_a_task_that_some_runs_lack_is_no_edge(tmp_path):
    dataset = metrics(0.1)
    dataset["final_accuracy"][0, -1] = np.nan
    write_variant(tmp_path / "a", dataset)
    (group,) = _found(tmp_path)
    (record,) = tables.summary(
        [group._replace(data=dataset)]
    )  # the run is not left out, as it were without online scores
    assert (record["first"], record["last"]) == (1, 5)


def test_tasks_are_named_once_where_all_tables_have_the_same(tmp_path):
    for name in ("a", "b"):
        write_variant(tmp_path / name, metrics(0.1, small=True))
    page, text = report.write(tmp_path).read_text(encoding="utf-8"), report.text(tmp_path)
    assert page.count("that have a final score") == text.count("that have a final score") == 1


@pytest.mark.parametrize(("block", "plural"), [("data", "data"), ("stream", "streams")])
def test_variants_of_other_data_are_not_compared(tmp_path, block, plural):
    """Neither are those of another stream; other settings of one stream are what is compared."""
    own = {"digits": {"stream__fraction": 0.5}, "plain": {}, "same": {}}
    for name, settings in (own | {"other": {f"{block}__name": "elsewhere"}}).items():
        write_variant(tmp_path / name, metrics(0.1, small=True), **settings)
    (tmp_path / "sweep.json").write_text('{"variants": ["plain", "other", "digits", "same"]}')
    assert [r["variant"] for r in tables.differences(_found(tmp_path))] == ["digits", "same"]
    name = {"data": "digits", "stream": "random_labels"}[block]
    note = f"Not compared, because their {plural} differ: other (elsewhere; plain has {name})."
    warned = f"Variants differ in {block}: {name} (plain, digits, same); elsewhere (other). They learn other things"
    page, text = report.write(tmp_path).read_text(encoding="utf-8"), report.text(tmp_path)
    assert note in page and note in text and warned in page and f"warning: {warned}" in text
    assert "Variants differ" not in report.text(tmp_path / "other")


def test_a_variant_without_configuration_is_compared(tmp_path):
    for name in ("a", "b"):
        write_variant(tmp_path / name, metrics(0.1, small=True))
    (tmp_path / "b" / "config.json").unlink()
    assert len(tables.differences(_found(tmp_path))) == 1 and "Variants differ" not in report.text(tmp_path)


def test_variants_of_other_lengths_are_not_compared(tmp_path):
    for name, tasks in {"plain": 6, "scratch": 1, "other": 6}.items():
        write_variant(tmp_path / name, metrics(0.1, tasks=tasks, small=True))
    (tmp_path / "sweep.json").write_text('{"variants": ["plain", "scratch", "other"]}')
    assert [r["variant"] for r in tables.differences(_found(tmp_path))] == ["other"]
    note = "Not compared, because their numbers of tasks differ: scratch (1; plain has 6)."
    assert note in report.write(tmp_path).read_text(encoding="utf-8") and note in report.text(tmp_path)
    assert tables.unpaired(_found(tmp_path / "other")) == ""
