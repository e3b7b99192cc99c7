"""What the model card asks for, in words: names of scenes, questions about them, words for boxes."""

from __future__ import annotations

SCENE_NAMES = {
    "BareLand": "bare land", "BaseballField": "a baseball field", "Center": "a central building",
    "DenseResidential": "a dense residential area", "MediumResidential": "a medium residential area",
    "SparseResidential": "a sparse residential area", "RailwayStation": "a railway station",
    "StorageTanks": "storage tanks", "Parking": "a parking lot", "Port": "a port with boats",
    "Commercial": "a commercial area", "Industrial": "an industrial area", "Farmland": "farmland",
    "Meadow": "a meadow", "Desert": "a desert",
}  # fmt: skip
"""Scene names that are not simply "a" and the class's name in lower case."""

SEVEN = {
    "Meadow": "grassland", "Farmland": "crop fields", "Industrial": "factories", "River": "a river or lake",
    "Pond": "a river or lake", "Forest": "woodland", "DenseResidential": "housing", "MediumResidential": "housing",
    "Parking": "a car park",
}  # fmt: skip
"""Scenes by the seven classes of RSSCN7 (grass, field, industry, river or lake, forest, housing, car park)."""
TWENTY = {
    "Airport": "aerodrome", "Beach": "seashore", "Desert": "dunes", "Port": "marina", "Forest": "woodland",
    "Farmland": "agriculture", "Stadium": "sports arena", "RailwayStation": "train depot",
    "StorageTanks": "oil reservoirs", "BaseballField": "diamond for ball games", "Church": "cathedral",
    "River": "stream", "Mountain": "hills", "Parking": "car park", "School": "campus", "Viaduct": "flyover",
    "Meadow": "grassland", "Industrial": "factories", "DenseResidential": "crowded housing", "Pond": "reservoir",
}  # fmt: skip
"""Scenes by words that their captions hardly use: does the model know more than its captions say?"""

DENSE_WORDS = {
    "aircraft": ("airplane", "plane", "jetliner"), "vehicle": ("car", "sedan", "autos"),
    "pool": ("swimming pool", "outdoor pool", "lido"),
}  # fmt: skip
SCENE_QUESTIONS = {
    "forest": ("Forest",), "parking lot": ("Parking",), "river": ("River",), "bridge": ("Bridge", "Viaduct"),
    "farmland": ("Farmland",), "storage tanks": ("StorageTanks",), "beach": ("Beach",), "stadium": ("Stadium",),
    "desert": ("Desert",), "pond": ("Pond",), "houses": ("DenseResidential", "MediumResidential", "SparseResidential"),
    "boats": ("Port",), "railway": ("RailwayStation",), "baseball field": ("BaseballField",),
}  # fmt: skip
"""Questions whose answer a scene class gives; other classes may hold the thing too, which lowers the figures."""


def scene_name(scene: str) -> str:
    """Return what a model is told of a scene class of AID."""
    return SCENE_NAMES.get(scene, f"a {scene.lower()}")
