"""The engine of leyden: command line, plugins, tasks, data, runs. It knows no task and no data set."""

__version__ = "0.1.0"
