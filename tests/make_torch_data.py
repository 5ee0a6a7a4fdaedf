"""Write tests/data/torch_NAME.npz: weights, values and gradients of small PyTorch twins, for `make test`.

.venv/bin/python tests/make_torch_data.py

Needs .venv-bench, which `make bench` and `make test-all` install.
"""

import pathlib
import tempfile

import numpy as np
import torch_twins as twins


def main():
    """All of them."""
    twins.DATA.mkdir(exist_ok=True)
    for name, case in twins.SMALL.items():
        given = twins.inputs(case, train=case.name == "resnet18")  # batch norm in training, where it is harder
        with tempfile.TemporaryDirectory() as folder:
            found = twins.run_torch(twins.peers_python(), case, given, pathlib.Path(folder))
        kept = {n: v for n, v in found.items() if not n.startswith("state/") or "running" in n}
        np.savez_compressed(twins.DATA / f"torch_{name}.npz", **given, **kept)


if __name__ == "__main__":
    main()
