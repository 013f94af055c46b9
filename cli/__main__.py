"""`python -m soar_tf.cli`."""

from soar_tf.cli.main import main

main(prog_name="soar-tf")
