"""Readers of data sets for evaluation, one per layout."""
