"""Results as files: vectors, rasters, QGIS styles and one picture for people."""

from geoalign_core.export.picture import draw_classes_picture, draw_picture
from geoalign_core.export.raster import class_colors, write_classes, write_heatmap
from geoalign_core.export.vector import VECTOR_SUFFIXES, write_vector

__all__ = [
    "VECTOR_SUFFIXES",
    "class_colors",
    "draw_classes_picture",
    "draw_picture",
    "write_classes",
    "write_heatmap",
    "write_vector",
]
