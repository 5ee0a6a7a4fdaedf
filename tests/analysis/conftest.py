import json

import pytest
from fake_results import VARIANTS, metrics, write_variant


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """Three variants, 8 seeds, 6 tasks, defined in an order that is not the alphabet's."""
    folder = tmp_path_factory.mktemp("results") / "x"
    for i, (name, slope) in enumerate(VARIANTS.items()):
        dataset = metrics(slope, seed=i)
        write_variant(folder / name, dataset, network__norm="layer" if name == "layer_norm" else "none")
    (folder / "sweep.json").write_text(json.dumps({"variants": list(VARIANTS)}))
    return folder


@pytest.fixture
def troubled(tmp_path):
    """A run that diverged, a variant under way, a grid, and a variant without any file but its configuration."""
    folder = tmp_path / "troubled"
    dataset = metrics(0.12)
    dataset["diverged"][3, 2:] = 1
    dataset["final_accuracy"][3, 2:] = 0.99
    write_variant(folder / "adam", dataset, diverged=[3])
    dataset = metrics(0.02, seed=1)
    unfinished = dataset.where(dataset["task"] < 4)
    write_variant(folder / "half", unfinished, state="running")
    grid = {"optimizer.learning_rate": (1e-2, 1e-3), "interventions.l2.strength": (0.0, 1e-4, 1e-3)}
    write_variant(folder / "grid", metrics(0.05, grid=grid, seed=2))
    (folder / "waiting").mkdir()
    (folder / "waiting" / "config.json").write_text('{"config": {"seeds"')
    return folder
