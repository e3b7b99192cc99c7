"""A static STAC 1.1 collection of the tiles: ``stac/collection.json`` and one item per tile under ``stac/items``."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tiling.chips.manifest import ManifestError, footprint
from tiling.errors import NotGeoreferencedError, OutputExistsError, UnsupportedRasterError
from tiling.files import atomic_folder, write_error
from tiling.lonlat import to_lonlat
from tiling.progress import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pystac

    from tiling.chips.manifest import Chip, Manifest, Source
    from tiling.progress import CancelToken, Progress
    from tiling.raster import Raster

FOLDER, COLLECTION, ITEMS = "stac", "collection.json", "items"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_MEDIA = {
    ".tif": "image/tiff; application=geotiff",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".npy": "application/octet-stream",
}
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_DATES = (("IMAGERY", "ACQUISITIONDATETIME"), (None, "ACQUISITIONDATETIME"), (None, "TIFFTAG_DATETIME"))
_BEND = 1e-5
"""Points of an outline that lie so close to its straight sides, in shares of its size, are left away."""


def raster_datetime(raster: Raster) -> datetime | None:
    """Return when a raster was taken as its tags tell, or None.

    ``ACQUISITIONDATETIME`` goes before TIFF's ``DateTime``, which may also be the time of processing. Times without
    a zone are taken as UTC.
    """
    handle = raster.handle()
    for namespace, name in _DATES:
        text = str(handle.tags(ns=namespace).get(name, "")).strip()
        # TIFF writes 2024:05:31 10:20:30.
        try:
            found = datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text))
        except ValueError:
            continue
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None


def check_stac(sources: Sequence[Source]) -> None:
    """Raise unless every raster has a place on the globe, which STAC items need.

    Raises:
        NotGeoreferencedError: One has no CRS.
    """
    for source in sources:
        if source.crs_wkt is None:
            raise NotGeoreferencedError(
                "has no CRS, so its tiles cannot be STAC items",
                path=source.path,
                remedy="assign one with 'gdal_edit.py -a_srs', or leave --stac away",
            )


def write_stac(
    manifest: Manifest,
    folder: Path,
    *,
    datetime_utc: datetime | Mapping[str, datetime | None] | None = None,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Path:
    """Write the tiles as a static STAC collection that can be moved and served with them.

    Items lie in longitude and latitude, split at the antimeridian, and keep the place in the tile's own CRS by the
    projection extension. Equal manifests give equal files. Items are written one after another, so memory holds two
    lines per tile.

    Args:
        manifest: The tiles.
        folder: Where the folder ``stac`` is made: the tiles' own, for the items name them by relative paths.
        datetime_utc: When the rasters were taken, or for each :attr:`Source.name` when (see
            :func:`raster_datetime`). Where it is unknown, the time at which the raster's file was last changed.
        progress: Called once per tile.
        cancel: Looked at before each tile.

    Returns:
        The path of the collection.

    Raises:
        NotGeoreferencedError: A raster has no CRS.
        UnsupportedRasterError: There is no tile that can be placed on the globe.
        ManifestError: A tile's path leads out of the folder, or two tiles have one name.
        OutputExistsError: There is a folder ``stac`` that holds no collection.
        OutputWriteError: The disk is full or refuses.
        CancelledError: The token was set; nothing is left behind.
    """
    check_stac([manifest.sources[index] for index in sorted({chip.source for chip in manifest.chips})])
    target = Path(folder) / FOLDER
    if target.is_symlink() or (target.exists() and not (target / COLLECTION).is_file()):
        raise OutputExistsError("is there and is no STAC collection", path=target, remedy="move it away")
    ids = _ids(manifest)
    times = [_time(source, datetime_utc) for source in manifest.sources]
    bboxes = []
    with atomic_folder(Path(folder), prefix=f".{FOLDER}.") as room:
        (room / FOLDER / ITEMS).mkdir(parents=True)
        for done, (name, chip) in enumerate(zip(ids, manifest.chips, strict=True)):
            if cancel is not None:
                cancel.check()
            item = _item(name, chip, manifest, times[chip.source])
            if item.bbox is not None:
                bboxes.append(item.bbox)
            _write(room / FOLDER / ITEMS / f"{name}.json", item.to_dict(include_self_link=False, transform_hrefs=False))
            progress(done + 1, len(ids), "writing STAC items")
        collection = _collection(manifest, ids, bboxes, times)
        _write(room / FOLDER / COLLECTION, collection.to_dict(include_self_link=False, transform_hrefs=False))
        try:
            if target.exists():
                os.rename(target, room / "old")  # noqa: PTH104 - both are on one file system
            os.rename(room / FOLDER, target)  # noqa: PTH104
        except OSError as error:
            raise write_error(target, error) from error
    return target / COLLECTION


def _ids(manifest: Manifest) -> list[str]:
    paths = [PurePosixPath(chip.path) for chip in manifest.chips]
    for path in paths:
        if path.is_absolute() or ".." in path.parts or "\\" in str(path):
            raise ManifestError("names a tile outside its folder", path=manifest.folder, measured=str(path))
    ids = [re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem) for path in paths]
    if len({name.lower() for name in ids}) < len(ids):
        raise ManifestError("names two tiles alike", path=manifest.folder, remedy="cut the tiles again")
    return ids


def _time(source: Source, known: datetime | Mapping[str, datetime | None] | None) -> datetime:
    found = known.get(source.name) if isinstance(known, Mapping) else known
    if found is None:
        seconds = int(source.fingerprint.get("mtime_ns", 0)) // 10**9
        return datetime.fromtimestamp(seconds, UTC)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _item(name: str, chip: Chip, manifest: Manifest, time: datetime) -> pystac.Item:
    import antimeridian
    import pystac
    import shapely

    source, window = manifest.sources[chip.source], chip.window
    corners = footprint(source, window)
    ground = to_lonlat(corners, source.crs)
    bbox = None
    if ground is not None:
        west, south, east, north = ground.bounds
        ground = shapely.simplify(ground, _BEND * max(min(east - west, north - south), 1e-9))
        bbox = [float(value) for value in antimeridian.bbox(ground)]
    item = pystac.Item(
        id=name,
        geometry=None if ground is None else shapely.geometry.mapping(ground),
        bbox=bbox,
        datetime=time,
        properties=_properties(chip, source),
        stac_extensions=[_PROJECTION],
        collection=_collection_id(manifest),
    )
    item.add_asset("tile", _asset(chip, source, manifest))
    for relation in ("root", "parent", "collection"):
        item.add_link(pystac.Link(relation, f"../{COLLECTION}", pystac.MediaType.JSON))
    item.add_link(pystac.Link("via", Path(source.path).absolute().as_uri(), title="the raster that it was cut from"))
    return item


@lru_cache(maxsize=64)
def _projection(wkt: str) -> dict[str, str | None]:
    from rasterio.crs import CRS

    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority()
    if authority is not None:
        return {"proj:code": ":".join(authority)}
    return {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}


def _properties(chip: Chip, source: Source) -> dict[str, Any]:
    window, place = chip.window, source.place(chip.window)
    properties: dict[str, Any] = {
        **_projection(str(source.crs_wkt)),
        "proj:transform": [float(value) for value in tuple(place)[:6]],
        "proj:shape": [int(window.height_px), int(window.width_px)],
        "geoalign:source": source.name,
        "geoalign:row": int(window.row),
        "geoalign:col": int(window.col),
        "geoalign:valid_fraction": float(chip.valid_fraction),
    }
    if source.gsd_m is not None:
        properties["gsd"] = float(source.gsd_m)
    if chip.split is not None:
        properties["geoalign:split"] = chip.split
    if chip.labels:
        properties["geoalign:labels"] = dict(sorted(chip.labels.items()))
    return properties


def _asset(chip: Chip, source: Source, manifest: Manifest) -> pystac.Asset:
    import pystac

    suffix = PurePosixPath(chip.path).suffix.lower()
    is_cog = suffix == ".tif" and manifest.job.get("spec", {}).get("format") == "cog"
    band: dict[str, Any] = {"data_type": source.dtype}
    if source.nodata is not None:
        band["nodata"] = "nan" if math.isnan(source.nodata) else source.nodata
    bands = [{"name": f"b{number}", **band} for number in source.bands]
    media = _COG if is_cog else _MEDIA.get(suffix)
    return pystac.Asset(f"../../{chip.path}", media_type=media, roles=["data"], extra_fields={"bands": bands})


def _collection_id(manifest: Manifest) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", manifest.folder.absolute().name) or "tiles"


def _collection(
    manifest: Manifest, ids: list[str], bboxes: list[list[float]], times: list[datetime]
) -> pystac.Collection:
    import pystac

    if not bboxes:
        raise UnsupportedRasterError(
            "holds no tile that can be placed on the globe", path=manifest.folder, remedy="leave --stac away"
        )
    used = sorted({times[chip.source] for chip in manifest.chips})
    splits = sorted({chip.split for chip in manifest.chips if chip.split is not None})
    resolutions = sorted({float(source.gsd_m) for source in manifest.sources if source.gsd_m is not None})
    collection = pystac.Collection(
        id=_collection_id(manifest),
        description=f"{len(ids):,} tiles of {len(manifest.sources):,} rasters, cut by geoalign-tile.",
        extent=pystac.Extent(pystac.SpatialExtent([_union(bboxes)]), pystac.TemporalExtent([[used[0], used[-1]]])),
        license="other",
        summaries=pystac.Summaries(
            {
                **({"gsd": resolutions} if resolutions else {}),
                **({"geoalign:split": splits} if splits else {}),
                **({"geoalign:classes": list(manifest.classes)} if manifest.classes else {}),
            },
            maxcount=max(25, len(resolutions), len(manifest.classes)),
        ),
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
    )
    collection.clear_links("root")
    collection.add_link(pystac.Link("root", f"./{COLLECTION}", pystac.MediaType.JSON))
    for name in ids:
        collection.add_link(pystac.Link("item", f"./{ITEMS}/{name}.json", pystac.MediaType.GEOJSON))
    return collection


def _union(bboxes: list[list[float]]) -> list[float]:
    """Return the smallest box around boxes; one across the antimeridian has its west east of its east."""
    south, north = min(box[1] for box in bboxes), max(box[3] for box in bboxes)
    around = sorted(bboxes, key=lambda box: box[0])
    gap, west, east, reach = 0.0, -180.0, 180.0, (-math.inf, 0.0)
    for turn in (0, 360):
        for box in around:
            # Only the second time round, all boxes that may reach so far are known.
            if turn and box[0] + turn - reach[0] > gap:
                gap, west, east = box[0] + turn - reach[0], box[0], reach[1]
            reach = max(reach, (box[2] + turn + (360 if box[2] < box[0] else 0), box[2]))
    return [west, south, east, north]


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(path, error) from error
