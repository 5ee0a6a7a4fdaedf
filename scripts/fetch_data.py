"""Download public data sets: python scripts/fetch_data.py mnist fashion_mnist cifar10 cifar100 [--folder DIR].

What is there and whole is left alone; a download that broke off is continued.
"""

import sys

from absl import app, flags

from plasticity_jax.host import fetch

FOLDER = flags.DEFINE_string("folder", None, "data folder; default $PLASTICITY_JAX_DATA, else the user's cache")
BASE_URL = flags.DEFINE_string("base_url", None, "mirror to use instead of the public ones; or $PLASTICITY_JAX_MIRROR")


def main(argv):
    """Fetch every data set that is named, and fail at the end if one of them failed."""
    if len(argv) < 2:
        raise app.UsageError(f"name one or more of {' '.join(fetch.SOURCES)}")
    failures = []
    for name in argv[1:]:
        try:
            fetch.fetch(name, FOLDER.value, BASE_URL.value)
        except ValueError as error:
            failures.append(f"{name}: {error}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    app.run(main)
