"""The verbs of estimator-ckpt, a module each; cli.py says what such a module has."""
