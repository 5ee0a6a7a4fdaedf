"""`:paper` presets beside their sources: numbers typed by hand, so that a preset cannot leave its source unnoticed.

Sources: Lyle et al. 2023 (arXiv 2303.01486), section 4 and appendix A; Lyle et al. 2024 (arXiv 2402.18762); Kumar et
al. 2023 (arXiv 2308.11958), Table 1; Dohare et al. 2024 (Nature 632), Methods; and the code of the latter two. What a
source leaves open is not in the table, or a comment calls it ours.
"""

import math

import jax
import pytest
from test_configs import FILES, module, spec_for

from plasticity_jax import cli
from plasticity_jax.build import DEFAULTS, build, complete

PLAIN = {"early_stopping": False, "interventions": {}, "schedule.name": "constant", "network.activation": "relu"}
ADAM = {  # PyTorch's defaults, but for the learning rate
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-3,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.999,
    "optimizer.eps": 1e-8,
    "optimizer.eps_root": 0.0,
}
KUMAR = {**PLAIN, **ADAM, "network.norm": "none", "stream.order": "shuffled"}  # Kumar
KUMAR_MLP = {  # Kumar: 2 x 100, in PyTorch's default initialisation
    "kernels": ((784, 100), (100, 100), (100, 10)),
    "network.kernel_init": "torch",
    "network.bias_init": "torch",
}
# Kumar: conv 5x5 16, pool, conv 5x5 16, pool, 100, 100; images of 32, 28, 14, 10 and then 5 x 5 pixels
KUMAR_CNN = ((5, 5, 3, 16), (5, 5, 16, 16), (400, 100), (100, 100))
CIFAR = {"stream.mean": (0.4914, 0.4822, 0.4465), "stream.std": (0.247, 0.243, 0.261)}  # Kumar's code, load_data.py
LYLE_2024 = {**PLAIN, "data.name": "cifar10", "stream.images": 0, "network.norm": "none", "optimizer.name": "adam"}
PROBE = {"diagnostics.probe.targets": 10, "diagnostics.probe.steps": 2_000}  # Lyle 2023
LARGE_PROBE = {**PROBE, "diagnostics.probe.inputs": 2_048, "diagnostics.probe.batch": 512}  # these two are ours
SOURCES = {
    "class_incremental:paper": {  # Dohare
        "data.name": "cifar100",
        "lengths": tuple(range(5_000, 100_001, 5_000)),  # 20 times 200 epochs, of 25 more steps with every 5 classes
        "seeds": 30,
        "stream.classes_per_task": 5,
        "stream.cumulative": True,
        "stream.per_class": 0,  # all but those for validation: 450
        "stream.validation": 50,
        "stream.batch": 90,
        "stream.augment": True,
        "stream.mean": (0.5071, 0.4865, 0.4409),  # Dohare's code, incremental_cifar_experiment.py
        "stream.std": (0.2673, 0.2564, 0.2762),
        "stream.evaluation": 10_000,  # all of the test set, and so all 5,000 validation images
        "early_stopping": True,
        "interventions": {},
        "parameters": 11_220_132,  # of ResNet-18 with the stem of CIFAR and 100 outputs
        "network.norm": "batch",
        "network.activation": "relu",
        "optimizer.name": "momentum",
        "optimizer.learning_rate": 0.1,
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": False,
        "optimizer.weight_decay": 5e-4,
        "schedule.name": "step",
        "schedule.span": "task",
        "schedule.decay": 0.2,
        "schedule.milestones": (60 / 200, 120 / 200, 160 / 200),
        "schedule.warmup": 0.0,
    },
    "composite:paper": {  # Lyle 2024: three changes; 20 tasks, 50,000 steps; all else ours
        **LYLE_2024,
        **LARGE_PROBE,
        "diagnostics.probe.every": 2,
        "lengths": 20 * (50_000,),
        "head.name": "linear",
        "stream.changes": {
            "drift": {"kind": "rotation", "growth": 0.2},
            "labels": {"name": "draw_labels", "fraction": 0.2},
            "targets": {"values": 0, "offset": 0.0, "growth": 1.0},
        },
    },
    "continual_pairs:paper": {  # Kumar
        **KUMAR,
        "data.name": "imagenet32",
        "lengths": 500 * (120,),  # 10 epochs
        "seeds": 10,
        "stream.per_class": 600,
        "stream.held_out": 100,  # Dohare: the same data
        "stream.batch": 100,
        "stream.cycle": 0,
        "kernels": (*KUMAR_CNN, (100, 2)),
    },
    "continual_pairs:paper_dohare": {  # Dohare
        **PLAIN,
        "data.name": "imagenet32",
        "lengths": 2_000 * (3_000,),  # 250 epochs of 12 steps
        "seeds": 30,
        "stream.per_class": 600,
        "stream.held_out": 100,
        "stream.batch": 100,
        "stream.cycle": 500,  # Dohare's code, imagenet/single_expr.py: one order of the 1,000 classes, again and again
        "stream.order": "shuffled",
        # images of 32, 28, 14, 12, 6, 4 and then 2 x 2 pixels
        "kernels": ((5, 5, 3, 32), (3, 3, 32, 64), (3, 3, 64, 128), (512, 128), (128, 128), (128, 2)),
        "network.norm": "none",
        "optimizer.name": "momentum",
        "optimizer.learning_rate": 1e-3,  # of the grid 1e-2, 1e-3, 1e-4
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": False,
        "optimizer.weight_decay": 0.0,
    },
    "five_plus_one:paper": {  # Kumar
        **KUMAR,
        **CIFAR,
        "data.name": "cifar100",
        "lengths": 30 * (780,),
        "seeds": 10,
        "stream.hard": 5,
        "stream.easy": 1,
        "stream.per_class": 500,  # 2,500 images of a hard task, 500 of an easy one
        "stream.batch": 32,
        "kernels": (*KUMAR_CNN, (100, 100)),
    },
    "input_drift:paper": {  # Lyle 2024: task length and number of tasks; all else ours
        **LYLE_2024,
        "lengths": 100 * (50_000,),
        "stream.kind": "rotation",
        "stream.severity": 0.0,
        "stream.growth": 1.4 / 99,  # 1.4 in the last task, as in that of `:laptop`: 7 times 0.2
    },
    "label_permutation:paper": {  # Lyle 2024: a last layer of 256; task length, number of tasks; all else ours
        **LYLE_2024,
        **LARGE_PROBE,
        "diagnostics.probe.every": 10,
        "lengths": 100 * (50_000,),
        "kernels": ((3072, 256), (256, 256), (256, 10)),
        "stream.first_identity": False,
    },
    "label_permutation:paper:gelu": {"network.activation": "gelu", "network.norm": "none"},  # Lyle 2024
    "permuted_pixels:paper": {  # Kumar
        **KUMAR,
        **KUMAR_MLP,
        "data.name": "mnist",
        "lengths": 500 * (625,),
        "seeds": 10,
        "stream.images": 10_000,
        "stream.batch": 16,
        "stream.redraw": True,  # Kumar's code, permuted_mnist.py and load_data.py
        "stream.first_identity": True,
        "stream.mean": 0.5,
        "stream.std": 0.5,
    },
    "permuted_pixels:paper_dohare": {  # Dohare
        **PLAIN,
        "data.name": "mnist",
        "lengths": 800 * (60_000,),
        "seeds": 30,  # Nature, Extended Data Figures 3 and 4; cfg/sgd/bp/std_net.json has 10
        "stream.images": 0,  # all 60,000
        "stream.redraw": False,
        "stream.batch": 1,
        "stream.order": "shuffled",
        "kernels": ((784, 2_000), (2_000, 2_000), (2_000, 2_000), (2_000, 10)),
        "network.norm": "none",
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 3e-3,  # of the grid 1e-2, 3e-3, 1e-3
        "optimizer.weight_decay": 0.0,
    },
    "random_labels:paper": {  # Kumar
        **KUMAR,
        **KUMAR_MLP,
        "data.name": "mnist",
        "lengths": 50 * (30_000,),  # 400 epochs
        "seeds": 10,
        "stream.images": 1_200,
        "stream.labels": "permuted",  # Kumar's code, random_label_envs.py and load_data.py
        "stream.fraction": 1.0,
        "stream.transition": 0,
        "stream.batch": 16,
        "stream.mean": 0.5,
        "stream.std": 0.5,
        **PROBE,
    },
    "random_labels:paper_lyle": {  # Lyle 2023; lengths and batch are those of the reproduction there
        **PLAIN,
        **ADAM,
        "data.name": "mnist",
        "lengths": 6 * (15_000,),
        "stream.images": 5_000,
        "stream.labels": "permuted",
        "stream.fraction": 1.0,
        "stream.transition": 0,
        "stream.batch": 128,
        "stream.evaluation": 4_096,
        "kernels": ((784, 1_024), (1_024, 1_024), (1_024, 10)),
        "network.norm": "none",
        "optimizer.eps": 1e-9,
        **LARGE_PROBE,
    },
    "random_labels:paper_lyle:tuned_adam": {  # Lyle 2023: epsilon inside the root, and faster second moments
        "optimizer.learning_rate": 1e-3,
        "optimizer.b1": 0.9,
        "optimizer.b2": 0.9,
        "optimizer.eps": 1e-9,
        "optimizer.eps_root": 1e-3,
    },
    "random_labels_cifar:paper": {  # Kumar
        **KUMAR,
        **CIFAR,
        "data.name": "cifar10",
        "lengths": 50 * (30_000,),  # 400 epochs
        "seeds": 10,
        "stream.images": 1_200,
        "stream.labels": "permuted",  # Kumar's code, random_label_envs.py
        "stream.fraction": 1.0,
        "stream.transition": 0,
        "stream.batch": 16,
        "kernels": (*KUMAR_CNN, (100, 10)),
    },
    "random_labels_smooth:paper": {  # Lyle 2024: task length, number of tasks; the transition is ours
        **LYLE_2024,
        **LARGE_PROBE,
        "diagnostics.probe.every": 10,
        "lengths": 100 * (50_000,),
        "stream.fraction": 1.0,
        "stream.transition": 25_000,
    },
    "random_labels_smooth:paper:abrupt": {
        "stream.fraction": 1.0,
        "stream.transition": 0,
    },  # Lyle 2024: from 1% to 100%
    "random_labels_smooth:paper:reset_01": {"stream.fraction": 0.01, "stream.transition": 0},
    "slowly_changing_regression:paper": {  # Dohare
        **PLAIN,
        "data.name": "none",
        "lengths": 300 * (10_000,),  # Dohare's code, cfg/flip_one/relu.json: 3,000,000 examples
        "seeds": 100,
        "stream.inputs": 20,
        "stream.slow": 15,
        "stream.units": 100,
        "stream.beta": 0.7,
        "stream.change": "flip",
        "stream.batch": 1,
        "head.name": "linear",
        "kernels": ((20, 5), (5, 1)),
        "network.norm": "none",
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e-2,  # of the grid 1e-2, 3e-3, 1e-3
        "optimizer.weight_decay": 0.0,
    },
    "target_offset:paper": {  # Lyle 2024: c = 100, first fit and second fit; task length
        **LYLE_2024,
        **LARGE_PROBE,
        **{name.replace("probe", "probe_offset"): value for name, value in LARGE_PROBE.items()},
        "diagnostics.probe.every_segments": 1,
        "diagnostics.probe_offset.every_segments": 1,
        "segment_steps": 10_000,
        "lengths": (50_000, 50_000),
        "stream.offset": 100.0,
        "stream.growth": 0.0,
        "head.name": "linear",
    },
    "warm_start:paper": {  # Ash and Adams 2020, section 2, and run.py of its code
        **PLAIN,
        "data.name": "cifar10",
        "lengths": (68_600, 137_200),  # 350 epochs, of 196 steps for each half of the images
        "stream.stages": 2,
        "stream.images": 0,
        "stream.noise": 0.0,
        "stream.batch": 128,
        "stream.mean": 0.5,
        "stream.std": 0.5,
        "parameters": 11_173_962,  # of ResNet-18 with the stem of CIFAR and 10 outputs
        "network.norm": "batch",
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.0,
    },
}


def built(name):
    """(configuration with all defaults, plan, parameters by shape) of `file:preset` or `file:preset:variant`."""
    stem, preset, *variant = name.split(":")
    source = module(next(path for path in FILES if path.stem == stem))
    config = source.get_config(preset).to_dict()
    config = cli.override(config, source.get_variants()[variant[0]]) if variant else config
    spec = spec_for(config["data"])
    # what is measured does not bear on what is trained, and takes long to make
    plan = build({**config, "diagnostics": {name: {"every": 0} for name in DEFAULTS["diagnostics"]}}, spec)
    arrays = {part: shapes for part, shapes in spec.items() if part != "classes"}
    state = jax.eval_shape(plan.make({}).trainer.init, jax.random.key(0), arrays)
    return complete(config), plan, state.learner.variables.params


def found(name, config, plan, params):
    """What a preset says under a name of the table: a setting, or something of what was built from it."""
    if name == "lengths":
        return plan.lengths
    if name == "segment_steps":
        return plan.segment_steps
    if name == "parameters":
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    if name == "kernels":
        return tuple(params[layer]["kernel"].shape for layer in sorted(params))
    for part in name.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("name", SOURCES)
def test_a_preset_has_the_numbers_of_its_source(name):
    parts = built(name)
    assert {number: found(number, *parts) for number in SOURCES[name]} == SOURCES[name]


def test_every_paper_preset_is_in_the_table():
    presets = [f"{path.stem}:{preset}" for path in FILES for preset in module(path).PRESETS if "paper" in preset]
    assert presets == [name for name in SOURCES if name.count(":") == 1]
