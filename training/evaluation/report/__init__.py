"""One HTML page from results. These are the keys of :attr:`Result.details` that it draws, all of them optional.

``confusion``
    ``{"classes": [str], "counts": [[int]]}``, rows are truth, columns are answers.
``per_class``
    ``[{"title", "unit": "%" | "share", "rows": [{"name", "value" | None, "low"?, "high"?, "count"?}]}]``, a chart each.
``retrievals``
    ``[{"group": "best" | "worst", "direction": "I2T" | "T2I", "query": ENTRY, "rank": int, "tied"?: int,
    "right": [ENTRY], "answers": [{**ENTRY, "score", "right": bool}]}]`` with ENTRY ``{"text"}`` or
    ``{"picture": PICTURE, "name"?, "text"?}``; ``tied`` of the rank are equal scores counted against the model.
``pictures``
    ``[{"title", "caption"?, "picture": PICTURE, "boxes"?: [{"box": [x1, y1, x2, y2] | "corners": [[x, y]],
    "kind": "truth" | "missed" | "hit" | "false", "label"?, "score"?}], "points"?: [{"x", "y", "kind"}],
    "heat"?: base64 PNG, "others"?: [{"title", "picture"}], "legend"?: [{"name", "colour": "#rrggbb"}]}]``.
``reliability``
    ``[{"title", "ece"?: share, "bins": [{"score", "precision" | None, "count"}]}]``.
``curves``
    ``[{"title", "x", "y", "lines": [{"name", "points": [[x, y]]}]}]``.

PICTURE is ``{"jpeg": base64, "width", "height"}`` from :func:`training.evaluation.report.thumbs.thumbnail`, its size
that of the original, or ``{"path"}``, relative to the result's file. Boxes and points are in pixels of the original.
"""
