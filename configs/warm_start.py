"""Growing data, after Ash and Adams 2020 (arXiv 1910.08475), where training on less of them hurts later.

What: 2,400 images of CIFAR-10, of which task 1 has a sixth, task 2 two sixths, and so on to all of them in task 6; the
network goes on with what it has become, and is tested on the data's own test set. MLP of two hidden layers of 100 ReLU
units, Adam at 1e-3, batch 50, 60 epochs of the task's images in each task. Each seed draws its own images. `:paper` is
the source's two stages, half of CIFAR-10 and then all of it, with ResNet-18, plain SGD at 1e-3, batch 128, and pixels
scaled by mean and std 0.5 as in its code (github.com/JordanAsh/warm_start), which however takes two thirds of the
training images for all of them, and tests on the others; here all are trained on, and the test set is the data's own.

    python scripts/fetch_data.py cifar10
    python scripts/sweep.py --config configs/warm_start.py:laptop --workdir results/warm_start
    python scripts/report.py results/warm_start

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 6 tasks; `:paper` has 5 seeds,
which is our choice, and has not been run here.

Variants: `plain`; `layer_norm` before each activation; `scratch`, which sees all images from the start, in one task as
long as the last one of `plain`: what its last task should be compared with; `noisy`, in which half of the images have
random labels until the last task gives them their own. With pixels in [0, 1] and 50 epochs, an earlier choice,
`scratch` reached a training accuracy of 0.73 only, so pixels are normalised, and all variants converge.

Time of `:laptop`: 4 minutes on 2 cores that are busy with other work. Units, ranks and sizes are measured after the
last task, what compares with an earlier measurement after tasks 3 and 6.

Expect of `:laptop`, real CIFAR-10, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, all tasks   test accuracy, task 1   task 6
    plain       1.000 ± 0.000               0.296 ± 0.017           0.365 ± 0.008
    layer_norm  1.000 ± 0.000               0.284 ± 0.007           0.357 ± 0.018
    scratch     1.000 ± 0.000               0.370 ± 0.013           -
    noisy       1.000 ± 0.000               0.201 ± 0.022           0.344 ± 0.012

Noisy labels in the first five tasks cost the last one test accuracy: `noisy` minus `plain` is -0.021 ± 0.008, seed by
seed. The gap between warm and cold starts does not show: `scratch` minus the last task of `plain` is 0.005 ± 0.018. The
source has 25 times the images, a convolutional network, and stages of half the data. All on the same 2,048 of the
10,000 test images, whose choice the intervals do not cover.
"""

from ml_collections import ConfigDict

MLP = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
CIFAR10 = {"mean": (0.491, 0.482, 0.447), "std": (0.247, 0.243, 0.262)}  # of the training images' pixels
ADAM = {"name": "adam", "learning_rate": 1e-3}
CHEAP = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
ONCE = {f"diagnostics.{name}.every": int(name in ("ranks", "units", "weights")) for name in CHEAP}
NOISY = {"stream.noise": 0.5, "stream.clean_from": 5}  # half of the labels are random until the last stage
PRESETS = {
    "smoke": {
        "seeds": 2,
        "tasks": 3,
        "data": {"name": "synthetic", "images": 90},
        "stream": {"stages": 3, "epochs": 4, "batch": 10},
        "network": MLP,
        "optimizer": ADAM,
    },
    "laptop": {
        "seeds": 4,
        "tasks": 6,
        "data": {"name": "cifar10"},
        "stream": {"stages": 6, "images": 2_400, "epochs": 60, "batch": 50, **CIFAR10},
        "network": MLP,
        "optimizer": ADAM,
    },
    "paper": {
        "seeds": 5,
        "tasks": 2,
        "data": {"name": "cifar10"},
        "stream": {"stages": 2, "epochs": 350, "batch": 128, "mean": 0.5, "std": 0.5},
        "network": {"name": "resnet18"},
        "optimizer": {"name": "sgd", "learning_rate": 1e-3},
    },
}


def get_config(preset="laptop"):
    """The plain variant."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = size["data"]
    config.stream = {"name": "warm_start", **size["stream"]}
    config.network = size["network"]
    config.optimizer = size["optimizer"]
    if preset == "laptop":
        config.diagnostics = {name: {"every": 3 if name in ("overlap", "shift") else 6} for name in CHEAP}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "scratch": {"tasks": 1, "stream.stages": 1, **ONCE},
        "noisy": NOISY,
    }
