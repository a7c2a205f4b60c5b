"""The command line: composition only. Importing it imports no heavy library."""

__version__ = "0.1.0"
