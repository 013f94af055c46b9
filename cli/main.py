"""The `soar-tf` command and what all its sub-commands share."""

import errno
import sys

import click

import soar_tf
from soar_tf.cli.compare import compare
from soar_tf.cli.completion import completion
from soar_tf.cli.doctor import doctor
from soar_tf.cli.evaluate import evaluate
from soar_tf.cli.export import export
from soar_tf.cli.import_weights import import_weights
from soar_tf.cli.listing import list_names
from soar_tf.cli.merge import merge
from soar_tf.cli.plot import plot
from soar_tf.cli.reproduce import reproduce
from soar_tf.cli.startup import second_signal_ends_at_once, stop_on_sigterm
from soar_tf.cli.train import train
from soar_tf.cli.transfer import transfer
from soar_tf.errors import InputError, RunError


class _Group(click.Group):
    """Maps the package's errors to exit codes: 2 for bad input, 1 for a run that failed."""

    def invoke(self, context):
        stop_on_sigterm()
        try:
            with second_signal_ends_at_once():
                return super().invoke(context)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(2)
        except RunError as error:
            click.echo(f"Failed: {error}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            context.exit(1)
        except BrokenPipeError:
            sys.stderr.close()
            context.exit(1)
        except OSError as error:
            bad_input = error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
            text = f"{error.filename}: {error.strerror}." if error.filename else str(error)
            click.echo(f"{'Error' if bad_input else 'Failed'}: {text}", err=True)
            context.exit(2 if bad_input else 1)
        except Exception as error:
            # TensorFlow's class is told by its name: most commands never import it.
            names = {kind.__name__ for kind in type(error).__mro__}
            if not names & {"MemoryError", "ResourceExhaustedError"}:
                raise
            click.echo(
                "Failed: out of memory; give a smaller --batch-size, --micro-batch, --image-size "
                "or --limit.",
                err=True,
            )
            context.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(soar_tf.__version__, prog_name="soar-tf")
def main():
    """Train image classifiers robustly with Keras, and measure how robust they are.

    Results go to stdout, progress to stderr. Exit code 0: done; 1: the run failed; 2: bad usage.
    """


for _command in (
    train,
    evaluate,
    merge,
    compare,
    transfer,
    plot,
    reproduce,
    export,
    import_weights,
    list_names,
    doctor,
    completion,
):
    main.add_command(_command)
