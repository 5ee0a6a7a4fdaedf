"""Writes the report of a result folder and prints its table.

python scripts/report.py results/x
"""

import sys

from absl import app

from plasticity_jax.analysis import report


def main(argv):
    """Prints the table of variants and the path of the report."""
    if len(argv) != 2:
        raise app.UsageError("name one folder of results: python scripts/report.py results/x")
    try:
        path = report.write(argv[1])
        print(report.text(argv[1]), f"report: {path}", sep="\n\n")
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    app.run(main)
