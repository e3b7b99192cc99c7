"""Layers: what an image layer is to the engine, which area is searched, and answers as layers of the project."""
