"""Tiles as files: planning, cutting, labels, splits, the manifest, and stitching them back together."""
