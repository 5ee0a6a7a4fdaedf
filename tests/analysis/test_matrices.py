"""Figures of metrics that have more than a number for each task: heat maps, and lines through the loss."""

import numpy as np
import pytest
import xarray as xr
from fake_results import metrics, write_variant

from plasticity_jax.analysis import figures, groups, interference, landscape, results

EXAMPLES, DISTANCES = 12, (-0.1, 0.0, 0.1)


def _cosines(sign):
    """Two groups of examples that undo each other, in alternation; the last example does not count."""
    signs = sign * np.resize([1.0, -1.0, 1.0], EXAMPLES)
    cosines = np.outer(signs, signs)
    cosines[-1], cosines[:, -1] = np.nan, np.nan
    return cosines


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Matrices and lines of two variants, measured after every other task."""
    folder = tmp_path_factory.mktemp("matrices")
    for name, slope in {"adam": 0.1, "other": 0.02}.items():
        dataset = metrics(slope, seeds=[0, 1, 2], small=True)
        shape = (3, dataset.sizes["task"])
        covariance = np.full((*shape, EXAMPLES, EXAMPLES), np.nan)
        covariance[:, 1::2] = _cosines(1.0)
        lines = np.full((*shape, 2, 3), np.nan)
        lines[:, 1::2] = np.arange(3)[:, None, None, None] + np.array([[3.0, 1.0, 3.0], [2.0, 1.0, 2.0]])
        dims = {
            "example": range(EXAMPLES),
            "other": range(EXAMPLES),
            "direction": range(2),
            "distance": list(DISTANCES),
        }
        own = {
            "gradient_covariance": (("run", "task", "example", "other"), covariance),
            "loss_along_gradient": (("run", "task", "distance"), lines[:, :, 0]),
            "loss_along_eigenvectors": (("run", "task", "direction", "distance"), lines),
        }
        write_variant(folder / name, xr.merge([dataset, xr.Dataset(own, dims)]))
    return groups.split(results.load(folder))


def test_clusters_stand_side_by_side_the_largest_first():
    cosines = _cosines(1.0)[:-1, :-1]
    examples, clusters = interference.order(cosines)
    assert sorted(examples.tolist()) == list(range(EXAMPLES - 1))
    ordered = cosines[np.ix_(examples, examples)]
    large = int((clusters == 0).sum())
    assert large == 7 and clusters.tolist() == [0] * 7 + [1] * 4
    assert (ordered[:large, :large] == 1).all() and (ordered[:large, large:] == -1).all()


def test_heat_maps_have_one_scale_and_leave_out_what_does_not_count(found):
    _, figure, _, records = interference.draw(found)
    maps = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in maps] == [
        f"{name},\ntask {task}" for name in ("adam", "other") for task in (2, 6)
    ]
    for axis in maps:
        (image,) = axis.images
        assert image.get_clim() == (-1, 1) and image.get_array().shape == (EXAMPLES - 1, EXAMPLES - 1)
        assert image.get_array()[0, -1] == -1 and image.get_array()[-1, -1] == 1
    assert len(records) == 4 * (EXAMPLES - 1)
    first = records[0]
    assert (first["variant"], first["task"], first["place"], first["example"], first["cluster"]) == ("adam", 2, 0, 0, 0)


def test_the_run_of_a_heat_map_is_named(found):
    other = found[1]._replace(data=found[1].data.isel(run=slice(1, None)))
    assert "of one run (seed 0)" in interference.draw(found).caption
    assert "of one run (adam: seed 0; other: seed 1)" in interference.draw([found[0], other]).caption


def test_titles_of_heat_maps_keep_clear_of_each_other_and_of_the_colour_bar(found):
    point = {"optimizer.learning_rate": 3e-4, "optimizer.b2": 0.999, "interventions.l2.strength": 1e-4}
    figure = interference.draw([group._replace(settings=point) for group in found]).figure
    figure.draw_without_rendering()
    titles = [axis.title.get_window_extent() for axis in figure.axes if axis.images]
    bar = figure.axes[-1].get_tightbbox()
    for left, right in zip(titles, [*titles[1:], bar], strict=True):
        assert left.x1 < right.x0 or left.y0 > right.y1


def test_lines_are_means_over_runs_at_the_distances(found):
    _, figure, _, records = landscape.draw(found)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"{line}, task {t}" for t in (2, 6) for line in ("gradient", "eigenvector 1", "eigenvector 2")]
    assert all(len(axis.lines) == 2 for axis in figure.axes)
    assert figure.axes[0].get_ylabel() == "loss"  # of whatever unit the objective has
    assert figure.axes[0].get_ylim() == figure.axes[3].get_ylim()  # one direction, two tasks
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), DISTANCES)
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), [3.0, 2.0, 3.0])  # mean of runs 0, 1, 2 above
    assert len(records) == 2 * 2 * 3 * 3


def test_the_report_draws_them_only_where_they_were_measured(found):
    names = [drawing.name for drawing in figures.draw(found)]
    assert names[-2:] == ["gradient_covariance", "landscape"]
    dropped = ["gradient_covariance", "loss_along_gradient", "loss_along_eigenvectors"]
    without = [group._replace(data=group.data.drop_vars(dropped)) for group in found]
    assert interference.draw(without) is None and landscape.draw(without) is None
