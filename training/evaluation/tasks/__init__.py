"""One module per task of ``geoalign-eval``."""
