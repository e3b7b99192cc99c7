"""Evaluation: every protocol of the three systems, one command."""
