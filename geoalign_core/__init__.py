"""GeoAlign's question side: type what you are looking for, and the map shows where it is.

>>> import geoalign_core as ga
>>> tanks = ga.ask("site.tif", "storage tanks")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoalign_core.api import ask, heatmap, index, region_features, similar

__version__ = "0.1.0"
__all__ = ["__version__", "ask", "heatmap", "index", "region_features", "similar"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: torch loads when a question is asked, not before
    if name in __all__:
        from geoalign_core import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
