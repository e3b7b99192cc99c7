"""The files of an answer: where they go, checked before the work begins, and written after it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoalign_core.settings import SCORE_PROTOCOL
from tiling.errors import NotGeoreferencedError, UsageError
from tiling.files import refuse_existing, write_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from geoalign_core.answer import Answer, Prepared
    from geoalign_core.landcover import ClassMap
    from tiling.info import RasterInfo

CLASSES = "classes"
"""Name of the land-cover map among the files; no question's files are called so."""
_SLUG_LENGTH = 48


@dataclass(frozen=True, slots=True)
class AnswerFiles:
    """Where the files of one question go; None is not written."""

    boxes: Path | None
    heatmap: Path | None
    picture: Path | None


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Where everything goes."""

    answers: tuple[AnswerFiles, ...]
    joint_boxes: Path | None
    """One vector file for the regions of all questions."""
    classes: Path | None
    classes_picture: Path | None
    overwrite: bool

    def paths(self) -> Iterable[Path]:
        """Give every file that will be written, the style and name files beside rasters included."""
        for files in self.answers:
            yield from (path for path in (files.boxes, files.heatmap, files.picture) if path)
        yield from (path for path in (self.joint_boxes, self.classes, self.classes_picture) if path)
        for raster in (*(files.heatmap for files in self.answers), self.classes):
            if raster is not None:
                yield raster.with_suffix(".qml")
        if self.classes is not None:
            yield self.classes.with_name(self.classes.name + ".aux.xml")

    def check(self, inputs: Sequence[Path] = ()) -> None:
        """Fail now rather than after the work.

        Args:
            inputs: Files that are read: never written over, whatever ``overwrite`` says.

        Raises:
            OutputExistsError: A file is there and ``overwrite`` was not asked for.
            OutputWriteError: A folder cannot be made, or a target is no file.
            UsageError: A suffix is wrong, two outputs share a name, or an output is an input.
        """
        from geoalign_core.export.vector import check_suffix

        for path in (self.joint_boxes, *(files.boxes for files in self.answers)):
            if path is not None:
                check_suffix(path)
        for files in self.answers:
            _check_kind(files.heatmap, (".tif", ".tiff"), "a heatmap")
            _check_kind(files.picture, (".png",), "a picture")
        paths = list(self.paths())
        read = {path.resolve() for path in inputs}
        for path in paths:
            if path.resolve() in read:
                raise UsageError("is read, so it cannot be written as well", path=path, remedy="give another name")
            if paths.count(path) > 1:
                raise UsageError("would be written twice", path=path, remedy="give each output a name of its own")
            refuse_existing(path, overwrite=self.overwrite)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(path.parent, error) from error

    def check_place(self, info: RasterInfo) -> None:
        """Fail for a format that needs a CRS when the raster has none.

        Raises:
            NotGeoreferencedError: GeoJSON was asked for.
        """
        for path in self.paths():
            if info.crs is None and path.suffix.lower() == ".geojson":
                raise _no_place(path)


def _no_place(path: Path) -> NotGeoreferencedError:
    return NotGeoreferencedError(
        "GeoJSON holds longitude and latitude, and this raster has no coordinate system", path=path,
        remedy="write .gpkg instead",
    )  # fmt: skip


def _check_kind(path: Path | None, suffixes: tuple[str, ...], what: str) -> None:
    if path is not None and path.suffix.lower() not in suffixes:
        raise UsageError(f"{what} is written as {suffixes[0]}", path=path, remedy=f"end its name with {suffixes[0]}")


def slugs(names: Sequence[str]) -> list[str]:
    """Turn questions into unique file names of ``a-z0-9-``."""
    result: list[str] = []
    for number, name in enumerate(names, 1):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_LENGTH].strip("-") or f"question-{number}"
        result.append(f"{slug}-{number}" if slug in (*result, CLASSES) else slug)
    return result


def plan_outputs(
    names: Sequence[str],
    *,
    folder: Path | None,
    boxes: Path | None,
    heatmap: Path | None,
    picture: Path | None,
    classes: Path | None,
    overwrite: bool,
) -> OutputPlan:
    """Decide where the files go.

    A folder takes ``<question>.gpkg``, ``.tif`` and ``.png`` for each question. A boxes file takes all the questions.
    A heatmap or picture file is for one question; with several, the question is put before its suffix.
    """
    marks = slugs(names)

    def single(path: Path | None, mark: str, suffix: str) -> Path | None:
        if path is not None:
            return path if len(marks) == 1 else path.with_name(f"{path.stem}-{mark}{path.suffix}")
        return None if folder is None else folder / f"{mark}{suffix}"

    answers = tuple(
        AnswerFiles(
            boxes=folder / f"{mark}.gpkg" if folder is not None and boxes is None else None,
            heatmap=single(heatmap, mark, ".tif"),
            picture=single(picture, mark, ".png"),
        )
        for mark in marks
    )
    return OutputPlan(answers, boxes, classes, None if classes is None else classes.with_suffix(".png"), overwrite)


def write_outputs(
    plan: OutputPlan, prepared: Prepared, answers: Sequence[Answer], class_map: ClassMap | None = None
) -> None:
    """Write the planned files, each whole or not at all.

    Raises:
        OutputWriteError: The disk or the folder refuses.
    """
    from geoalign_core.export import draw_picture, write_heatmap, write_vector
    from geoalign_core.frame import answers_frame
    from geoalign_core.preview import read_preview

    model = prepared.encoder.config.name
    spec = prepared.index.spec

    def layers(some: Sequence[Answer]) -> dict[str, object]:
        return {
            "boxes": answers_frame(some, model=model, shape="box"),
            "polygons": answers_frame(some, model=model, shape="polygon"),
        }

    if plan.joint_boxes is not None:
        write_vector(plan.joint_boxes, layers(answers), overwrite=plan.overwrite)
    wants_picture = plan.classes_picture or any(files.picture for files in plan.answers)
    preview = (
        read_preview(
            prepared.raster, bands=spec.bands, stretch=spec.stretch, area=prepared.area, jobs=prepared.settings.jobs
        )
        if wants_picture
        else None
    )
    for answer, files in zip(answers, plan.answers, strict=True):
        if files.boxes is not None:
            write_vector(files.boxes, layers([answer]), overwrite=plan.overwrite)
        if files.heatmap is not None:
            tags = {
                "GEOALIGN_QUERY": answer.query,
                "GEOALIGN_MODEL": model,
                "GEOALIGN_PROTOCOL": SCORE_PROTOCOL,
                "GEOALIGN_THRESHOLD": f"{answer.threshold:.4f}",
            }
            heat = answer.heatmap
            write_heatmap(
                files.heatmap,
                heat.values,
                transform=heat.transform,
                crs=heat.crs,
                tags=tags,
                threshold=answer.threshold,
                overwrite=plan.overwrite,
            )
        if files.picture is not None and preview is not None:
            draw_picture(
                files.picture,
                image=preview.image,
                image_valid=preview.valid,
                transform=preview.transform,
                crs=answer.heatmap.crs,
                heat=answer.heatmap.values,
                heat_transform=answer.heatmap.transform,
                boxes=answers_frame([answer], model=model, shape="box"),
                query=answer.query,
                threshold=answer.bar,
                model=model,
                gsd_m=answer.gsd_m,
                overwrite=plan.overwrite,
            )
    if plan.classes is not None and class_map is not None:
        _write_classes(plan, prepared, class_map, preview)


def _write_classes(plan: OutputPlan, prepared: Prepared, class_map: ClassMap, preview: object) -> None:
    from geoalign_core.export import class_colors, draw_classes_picture, write_classes
    from geoalign_core.preview import Preview

    colors = class_colors(len(class_map.names))
    heat = class_map.heatmap
    model = prepared.encoder.config.name
    if plan.classes is not None:
        write_classes(
            plan.classes,
            class_map.classes,
            class_map.names,
            colors,
            transform=heat.transform,
            crs=heat.crs,
            tags={"GEOALIGN_MODEL": model, "GEOALIGN_PROTOCOL": "argmax-cosine-1"},
            overwrite=plan.overwrite,
        )
    if plan.classes_picture is not None and isinstance(preview, Preview):
        draw_classes_picture(
            plan.classes_picture,
            image=preview.image,
            image_valid=preview.valid,
            transform=preview.transform,
            crs=heat.crs,
            classes=class_map.classes,
            class_transform=heat.transform,
            names=class_map.names,
            colors=colors,
            model=model,
            gsd_m=prepared.gsd_m,
            overwrite=plan.overwrite,
        )


def summary(
    plan: OutputPlan,
    prepared: Prepared,
    answers: Sequence[Answer],
    *,
    class_map: ClassMap | None = None,
    notes: Sequence[str] = (),
) -> dict[str, object]:
    """Lay the run out as one JSON object."""
    index = prepared.index
    levels = [level.canvas.gsd_m for level in index.spec.levels]
    result: dict[str, object] = {
        "raster": str(prepared.raster.path),
        "model": prepared.encoder.config.name,
        "model_key": prepared.encoder.key,
        "protocol": SCORE_PROTOCOL,
        "gsd_m": levels,
        "bands": list(index.spec.bands.names),
        "index": {
            "path": str(index.root),
            "reused": index.reused,
            "built_shards": index.report.built_shards,
            "rows": index.rows,
        },
        "queries": [
            {
                "query": answer.query,
                "count": len(answer.regions),
                "threshold": round(answer.threshold, 4),
                "seed": round(answer.seed, 4),
                "above": round(answer.bar, 4),
                "best_score": None if answer.best_score is None else round(answer.best_score, 4),
                "precision": _precision(answer),
                "boxes": _text(files.boxes or plan.joint_boxes),
                "heatmap": _text(files.heatmap),
                "picture": _text(files.picture),
            }
            for answer, files in zip(answers, plan.answers, strict=True)
        ],
        "seconds": dict(prepared.seconds),
        "notes": list(notes),
    }
    if class_map is not None:
        result["classes"] = {
            "path": _text(plan.classes),
            "picture": _text(plan.classes_picture),
            "names": list(class_map.names),
        }
    return result


def _precision(answer: Answer) -> dict[str, float | None] | None:
    """Return the precision of the lowest score of a match and of the best place, and the prior; None if unknown."""
    known = answer.calibration
    if known is None:
        return None
    best = None if answer.best_score is None else round(float(known.precision(answer.best_score)), 4)
    return {"prior": known.prior, "above": round(float(known.precision(answer.bar)), 4), "best": best}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
