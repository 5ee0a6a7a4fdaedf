"""Random Label CIFAR of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958, Table 1), with Adam at 1e-3.

What: a convolutional network (two times conv 5x5 with 16 channels and 2x2 max pooling, dense 100, dense 100, ReLU,
PyTorch's default initialisation) learns 1,200 CIFAR-10 images whose labels are drawn at random and anew for each task;
batch 16, shuffled epochs. Each seed draws its own images once. `:paper` shuffles the images' own labels and scales each
channel by its mean and deviation, as the source's code does (github.com/skumar9876/L2_Init); the laptops draw each
label independently and leave pixels in [0, 1]. `:laptop_resnet18` puts a narrow ResNet-18 (width 0.25, CIFAR stem) in
the network's place, with batch 32, which is not in the source.

    python scripts/fetch_data.py cifar10
    python scripts/sweep.py --config configs/random_labels_cifar.py:laptop --workdir results/random_labels_cifar
    python scripts/report.py results/random_labels_cifar

Presets: `:smoke` is for tests, on synthetic images; `:laptop` has 4 seeds and 5 tasks of 7,500 steps (100 epochs);
`:laptop_resnet18` has 4 seeds and 5 tasks of 1,140 steps (30 epochs); `:paper` is the source's size, 50 tasks of 30,000
steps (400 epochs) and 10 seeds, and has not been run here.

Variants: `plain`, without a norm, or with ResNet-18 with its batch norm, and `layer_norm` before each activation.
Nothing was tuned on these numbers.

Time on 2 cores busy with other work: `:laptop` 14 minutes a variant, `:laptop_resnet18` 2 hours 20 minutes for `plain`.

Expect, real CIFAR-10, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    preset, variant             final accuracy, task 1   task 5           change           online accuracy, all tasks
    `:laptop`, plain            1.000 ± 0.000            0.202 ± 0.168   -0.798 ± 0.168    0.377 ± 0.121
    `:laptop`, layer_norm       1.000 ± 0.000            1.000 ± 0.000    0.000 ± 0.000    0.760 ± 0.047
    `:laptop_resnet18`, plain   1.000 ± 0.000            1.000 ± 0.000    0.000 ± 0.000    0.879 ± 0.010

The convolutional network loses its plasticity in its second or third task, by seed (final accuracy in task 2: 1.000,
0.608, 0.470, 0.995; in task 3: 0.115, 0.264, 0.155, 0.488), while its units die: 59% of the second convolution's and 46
to 48% of the dense layers' are zero on all 1,200 images after task 5. With layer norm it memorises all five, with at
most 2% of a layer's units dead; its online accuracy does not show a trend (0.737 ± 0.045 in task 1, 0.771 ± 0.046 in
task 5), and its weights grow more (norm 28.0, in the end 48.5) than those of `plain` (25.8, in the end 39.3). ResNet-18
with batch norm memorises all five tasks (one seed ends one of them at 0.972), and not one of its units dies; its online
accuracy is 0.90 in task 1 and 0.87 to 0.88 after it; with layer norm it has not been run.
"""

from ml_collections import ConfigDict

CNN = {"name": "cnn", "preset": "kumar"}
RESNET = {"name": "resnet18", "width": 0.25}
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 10, "images": 32, "batch": 8, "network": CNN},
    "laptop": {"seeds": 4, "tasks": 5, "steps": 7_500, "images": 1_200, "batch": 16, "network": CNN},
    "laptop_resnet18": {"seeds": 4, "tasks": 5, "steps": 1_140, "images": 1_200, "batch": 32, "network": RESNET},
    "paper": {"seeds": 10, "tasks": 50, "steps": 30_000, "images": 1_200, "batch": 16, "network": CNN},
}
SOURCE = {"labels": "permuted", "mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.243, 0.261)}
SYNTHETIC = {"name": "synthetic", "images": 64, "test_images": 10, "height": 32, "width": 32, "channels": 3}


def get_config(preset="laptop"):
    """The plain variant: Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = SYNTHETIC if preset == "smoke" else {"name": "cifar10"}
    stream = {name: size[name] for name in ("images", "batch", "steps")}
    config.stream = {"name": "random_labels", **stream, **(SOURCE if preset == "paper" else {})}
    config.network = size["network"]
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    if preset == "laptop":  # to keep what is measured below 5% of training
        config.diagnostics = {"duplicates": {"every": 5}, "gradients": {"every": 5}}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {"plain": {}, "layer_norm": {"network.norm": "layer"}}
