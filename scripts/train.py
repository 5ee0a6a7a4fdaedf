"""Train one variant, all its runs.

python scripts/train.py --config configs/random_labels.py:laptop --config.seeds=32 --workdir results/x
"""

from absl import app, flags

from plasticity_jax import cli

cli.define_flags()
flags.DEFINE_string("variant", None, "A variant of the configuration file; by default the plain configuration.")


def main(_):
    """Train as the flags say, and leave with an exit code."""

    def action():
        config = cli.configuration()
        name = flags.FLAGS.variant
        if name:
            config = cli.override(config, cli.variants([name])[name])
        cli.set_up(config)
        from plasticity_jax.run import run

        return run(config, flags.FLAGS.workdir, name)

    cli.exits(action)


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse_flags)
