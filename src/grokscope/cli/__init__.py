"""The command line. Parsing and printing only; everything it shows is made elsewhere."""

from grokscope.cli.app import main

__all__ = ["main"]
