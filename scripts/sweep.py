"""Train all variants of a configuration, one after the other, each in its own folder under --workdir.

python scripts/sweep.py --config configs/random_labels.py:laptop --workdir results/x [--variants a,b]
"""

from absl import app, flags

from plasticity_jax import cli

cli.define_flags()
flags.DEFINE_list("variants", None, "Names of variants; by default all of them.")


def main(_):
    """Train as the flags say, and leave with an exit code."""

    def action():
        config = cli.configuration()
        variants = {name: cli.override(config, o) for name, o in cli.variants(flags.FLAGS.variants).items()}
        cli.set_up(*variants.values())
        from plasticity_jax.run import sweep

        return sweep(variants, flags.FLAGS.workdir)

    cli.exits(action)


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse_flags)
