"""edgemtl: from one multi-task data set and one device budget to a deployable, measured bundle."""

__all__ = ["__version__"]

__version__ = "0.1.0"
