"""``python -m geoalign_core`` is ``geoalign``."""

from geoalign_core.cli import main

if __name__ == "__main__":
    main()
