"""``python -m grokscope``."""

from grokscope.cli import main

main()
