"""Let `python -m lorgnette` do what `lorgnette` does."""

from lorgnette.cli import main

main()
