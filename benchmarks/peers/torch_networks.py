"""The networks of plasticity_jax in plain PyTorch, as a good user would write them, and one pass through them.

    .venv-bench/bin/python benchmarks/peers/torch_networks.py CASE.npz RESULT.npz

A case holds "network" (JSON: name and settings, see `build`), "train" (0 or 1), "x" [B, C, H, W], "target" [B, K] and,
under "state/NAME", the state dict; without one, torch's own initialisation at seed 0 is used. The result holds "y",
the gradients of the loss sum((y - target)^2) / (2 B) under "gradient/NAME", and under "state/NAME" the state dict, the
running statistics as they are after the pass. Nothing but torch and numpy is imported.
"""

import json
import sys

import numpy as np
import torch
from torch import nn

__all__ = ["BUILDERS", "build"]


def mlp(inputs, outputs, widths=(100, 100)):
    """Dense layers with ReLU."""
    sizes = (inputs, *widths)
    layers = {"flatten": nn.Flatten()}
    for i in range(len(widths)):
        layers |= {f"fc{i}": nn.Linear(sizes[i], sizes[i + 1]), f"act{i}": nn.ReLU()}
    return _sequential({**layers, "head": nn.Linear(sizes[-1], outputs)})


def cnn(image, outputs, channels=(64, 64), windows=(5, 3), pool=False, widths=(256, 256)):
    """Convolutions without padding, each with ReLU and perhaps 2x2 max pooling, then dense layers."""
    layers, read, size = {}, image[0], image[1:]
    for i, (units, window) in enumerate(zip(channels, windows, strict=True)):
        layers |= {f"conv{i}": nn.Conv2d(read, units, window), f"conv{i}_act": nn.ReLU()}
        read, size = units, [s - window + 1 for s in size]
        if pool:
            layers[f"pool{i}"], size = nn.MaxPool2d(2), [s // 2 for s in size]
    layers["flatten"], read = nn.Flatten(), read * size[0] * size[1]
    for i, units in enumerate(widths):
        layers |= {f"fc{i}": nn.Linear(read, units), f"fc{i}_act": nn.ReLU()}
        read = units
    return _sequential({**layers, "head": nn.Linear(read, outputs)})


def _sequential(layers):
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


class Block(nn.Module):
    """Basic block with batch norm."""

    def __init__(self, read, units, stride):
        super().__init__()
        self.conv0 = nn.Conv2d(read, units, 3, stride, 1, bias=False)
        self.conv0_norm = nn.BatchNorm2d(units)
        self.conv1 = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        self.conv1_norm = nn.BatchNorm2d(units)
        if stride != 1:
            self.shortcut = nn.Conv2d(read, units, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(units)
        self.stride = stride

    def forward(self, x):
        """[B, C, H, W] -> [B, U, H', W']."""
        h = torch.relu(self.conv0_norm(self.conv0(x)))
        h = self.conv1_norm(self.conv1(h))
        return torch.relu(h + (x if self.stride == 1 else self.shortcut_norm(self.shortcut(x))))


class ResNet18(nn.Module):
    """With the stem for small images or that of ImageNet."""

    def __init__(self, channels, outputs, width=1.0, stem="cifar"):
        super().__init__()
        units = [max(1, round(u * width)) for u in (64, 128, 256, 512)]
        small = stem == "cifar"
        self.stem = nn.Conv2d(channels, units[0], 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(units[0])
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        read, self.names = units[0], []
        for stage, u in enumerate(units):
            for block in range(2):
                self.names.append(f"stage{stage}_block{block}")
                self.add_module(self.names[-1], Block(read, u, 2 if stage and block == 0 else 1))
                read = u
        self.head = nn.Linear(read, outputs)

    def forward(self, x):
        """[B, C, H, W] -> [B, K]."""
        x = self.pool(torch.relu(self.stem_norm(self.stem(x))))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


class ViT(nn.Module):
    """Of torch's own encoder layers, norms first; their dropout also drops attention's probabilities."""

    def __init__(self, image, outputs, patch=3, dim=256, feedforward=1024, depth=1, heads=8, dropout=0.1):
        super().__init__()
        tokens = 1 + (image[1] // patch) * (image[2] // patch)
        self.patches = nn.Conv2d(image[0], dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, dim))
        self.dropout = nn.Dropout(dropout)
        gelu = nn.GELU(approximate="tanh")
        for i in range(depth):
            block = nn.TransformerEncoderLayer(
                dim, heads, feedforward, dropout, gelu, batch_first=True, norm_first=True
            )
            self.add_module(f"block{i}", block)
        self.depth, self.norm, self.head = depth, nn.LayerNorm(dim), nn.Linear(dim, outputs)

    def forward(self, x):
        """[B, C, H, W] -> [B, K]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.dropout(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions)
        for i in range(self.depth):
            x = getattr(self, f"block{i}")(x)
        return self.head(self.norm(x)[:, 0])


BUILDERS = {
    "mlp": lambda image, outputs, **settings: mlp(int(np.prod(image)), outputs, **settings),
    "cnn": cnn,
    "resnet18": lambda image, outputs, **settings: ResNet18(image[0], outputs, **settings),
    "vit": ViT,
}


def build(name, image, outputs, **settings):
    """A network by name; `image` is (C, H, W)."""
    return BUILDERS[name](image, outputs, **settings)


def main(case_path, result_path):
    """One pass forwards and backwards."""
    case = np.load(case_path)
    torch.manual_seed(0)
    model = build(**json.loads(str(case["network"])))
    given = {name[6:]: torch.from_numpy(case[name]) for name in case.files if name.startswith("state/")}
    if given:
        found = model.load_state_dict(given, strict=False)
        missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
        assert not missing and not found.unexpected_keys, found
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train(bool(case["train"]))
    y = model(torch.from_numpy(case["x"]))
    loss = ((y - torch.from_numpy(case["target"])) ** 2).sum() / (2 * len(y))
    loss.backward()
    result = {"y": y.detach()}
    result |= {f"gradient/{name}": p.grad for name, p in model.named_parameters()}
    result |= {f"state/{name}": value for name, value in model.state_dict().items()}
    result |= {f"before/{name}": value for name, value in before.items()}
    drop = {name for name in result if name.endswith("num_batches_tracked")}
    np.savez_compressed(result_path, **{name: np.asarray(v) for name, v in result.items() if name not in drop})


if __name__ == "__main__":
    main(*sys.argv[1:])
