"""Writes the report of a result folder and prints its table.

python scripts/report.py results/x
python scripts/report.py results/x --metric=explained_variance --tasks=1-5 --tasks=26-30    a table alone
"""

import sys

from absl import app, flags

from plasticity_jax.analysis import report, tables, windows

flags.DEFINE_string("metric", None, "Print a table of this metric and write nothing.")
flags.DEFINE_multi_string("tasks", None, "A column of it: 3, 1-5 or 1-29:2, counted from 1; repeatable.")


def main(argv):
    """Prints the table of variants and the path of the report, or the table that is asked for."""
    values = flags.FLAGS
    if len(argv) != 2:
        raise app.UsageError("name one folder of results: python scripts/report.py results/x")
    if bool(values.metric) != bool(values.tasks):
        raise app.UsageError("a table takes both: --metric=final_accuracy --tasks=1-5 --tasks=26-30")
    try:
        if values.metric:
            print(f"{values.metric}, mean ± half of the 95% interval over seeds")
            print(tables.to_text(windows.table(argv[1], values.metric, values.tasks)))
            return
        path = report.write(argv[1])
        print(report.text(argv[1]), f"report: {path}", sep="\n\n")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    app.run(main)
