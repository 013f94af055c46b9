"""The command line, importable as `soar_tf.cli`.

Modules here import nothing heavy at the top: `soar-tf --help` must answer at once.
"""
