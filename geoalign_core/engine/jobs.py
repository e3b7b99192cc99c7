"""The operations that take time, each from checked arguments to its result."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoalign_core.engine.arguments import AskArgs, Fields, Target, read_stem

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoalign_core.engine.job import Job
    from geoalign_core.engine.places import Places
    from geoalign_core.engine.session import Opened, Session
    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.indexing import Index

_PARTIAL_S = 5.0
"""Between two heatmaps of an index that grows."""


class Jobs:
    """Does one request after the other.

    Args:
        session: What stays warm.
        places: Which paths a client may name.
    """

    def __init__(self, session: Session, places: Places) -> None:
        self.session, self.places = session, places
        self._ops: dict[str, Callable[[Job, Fields], dict[str, Any]]] = {
            "status": self._status, "warm": self._warm, "describe": self._describe, "index": self._index,
            "ask": self._ask, "landcover": self._landcover, "regions": self._regions, "tile": self._tile,
        }  # fmt: skip

    def run(self, job: Job) -> dict[str, Any]:
        """Do a job and return its result.

        Raises:
            Exception: Whatever went wrong; :func:`geoalign_core.engine.failures.failure_of` names it.
        """
        return self._ops[job.request.op](job, Fields(job.request.args, "args"))

    def think_ahead(self, job: Job) -> None:
        """After a question, load what learns from examples, so that the first search by examples comes at once.

        Nobody asked for it yet: that it cannot be loaded is told to whoever does.
        """
        if job.request.op == "ask":
            with contextlib.suppress(Exception):
                import sklearn.linear_model  # noqa: F401

    def _target(self, args: Fields) -> Target:
        """Read which raster and check that the client may name it."""
        return self._allowed(Target.read(args))

    def _allowed(self, target: Target) -> Target:
        from dataclasses import replace

        path = self.places.readable(target.source.path)
        source = replace(target.source, path=path, allow_vrt=self.places.virtual(asked=target.source.allow_vrt))
        return replace(target, source=source, look=replace(target.look, model=self.places.model(target.look.model)))

    def _status(self, job: Job, _: Fields) -> dict[str, Any]:
        from geoalign_core.engine.facts import status

        job.stage("looking around")
        return status()

    def _warm(self, job: Job, args: Fields) -> dict[str, Any]:
        from geoalign_core.engine.arguments import LookArgs

        begun = time.perf_counter()
        look = LookArgs.read(args.inner("look"))
        encoder = self.session.encoder(self.places.model(look.model), look.device, job.stage)
        encoder.encode_text(["ground"])
        return {"seconds": round(time.perf_counter() - begun, 3)}

    def _describe(self, job: Job, args: Fields) -> dict[str, Any]:
        from geoalign_core.engine.facts import describe

        target = self._target(args)
        return describe(self.session.open(target, job.stage), target)

    def _index(self, job: Job, args: Fields) -> dict[str, Any]:
        from geoalign_core.answer import refuse_empty
        from geoalign_core.engine.build import build

        begun = time.perf_counter()
        target = self._target(args)
        opened = self.session.open(target, job.stage)
        index = build(opened, target.area, job)
        refuse_empty(index, opened.raster.path)
        return {
            "index": str(index.root), "rows": index.rows, "built_shards": index.report.built_shards,
            "kept_shards": index.report.kept_shards, "bytes": index.size_bytes,
            "seconds": round(time.perf_counter() - begun, 3),
        }  # fmt: skip

    def _ask(self, job: Job, raw: Fields) -> dict[str, Any]:
        from dataclasses import replace

        from geoalign_core.engine.build import build_in_pieces
        from geoalign_core.models.encoder import require_text

        args = AskArgs.read(raw)
        args = replace(args, target=self._allowed(args.target))
        question = _Question(self, job, args, self.places.folder(args.out))
        opened = self.session.open(args.target, job.stage)
        if args.query is not None:
            require_text(opened.encoder)
        question.note_time("open")
        pieces = build_in_pieces(opened, args.target.area, job)
        index = next(pieces)
        with contextlib.closing(pieces):
            for grown in pieces:
                question.show_growing(opened, index)
                index = grown
        question.note_time("index")
        return question.answer(opened, index)

    def _landcover(self, job: Job, args: Fields) -> dict[str, Any]:
        from geoalign_core.engine.landcover import landcover

        target, queries, stem = self._target(args), args.texts("queries"), read_stem(args)
        folder = self.places.folder(args.optional_text("out"))
        paths, names, notes = landcover(self.session, target, queries, folder / f"{stem}.tif", job)
        return {"files": {"classes": self.places.told(paths)}, "names": names, "notes": notes}

    def _regions(self, job: Job, args: Fields) -> dict[str, Any]:
        from geoalign_core.engine.landcover import regions

        heatmap = Path(self.places.readable(args.text("heatmap")))
        target = self.places.folder(args.optional_text("out")) / f"{read_stem(args)}.gpkg"
        path, count, best = regions(heatmap, target, args, job)
        return {"files": {"regions": self.places.told(path)}, "count": count, "best_score": best}

    def _tile(self, job: Job, args: Fields) -> dict[str, Any]:
        from geoalign_core.engine.landcover import tile

        folder = self.places.folder(args.optional_text("out"))
        found = tile(self._target(args).source, folder, args, job)
        return {**found, "folder": self.places.told(folder), "manifest": self.places.told(Path(found["manifest"]))}


class _Question:
    """The course of one ``ask``."""

    def __init__(self, jobs: Jobs, job: Job, args: AskArgs, folder: Path) -> None:
        self._jobs, self._job, self._args, self._folder = jobs, job, args, folder
        self._clock = self._shown = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._parts: list[Path] = []
        self._built = 0

    def note_time(self, stage: str) -> None:
        """Book the time since the last call under a stage."""
        now = time.monotonic()
        self._seconds[stage] = round(self._seconds.get(stage, 0.0) + now - self._clock, 3)
        self._clock = now

    def show_growing(self, opened: Opened, index: Index) -> None:
        """Send the heatmap of what is indexed so far, unless that was just done or cannot be."""
        from geoalign_core.engine.search import ask_scores, heatmap_of, prepared_of
        from geoalign_core.errors import ExamplesError

        self._built += index.report.embedded_windows
        if time.monotonic() - self._shown < _PARTIAL_S or index.rows == 0 or "heatmap" not in self._args.products:
            return
        try:
            scores = ask_scores(opened, index, self._args, self._job)
        except ExamplesError:
            return  # the examples lie where nothing is indexed yet
        heat = heatmap_of(prepared_of(opened, index, self._args.target.area), scores)
        # A name of its own: a map program may hold the one before open.
        path = self._folder / f"{self._args.stem}-part{len(self._parts) + 1}.tif"
        self._write_heatmap(path, heat, opened)
        self._parts.append(path)
        self._job.partial(self._result(opened, index, heat, {"heatmap": self._jobs.places.told(path)}))
        self._shown = time.monotonic()

    def answer(self, opened: Opened, index: Index) -> dict[str, Any]:
        """Search the finished index, send the heatmap, find the regions and return the result."""
        from geoalign_core.engine.search import ask_scores, heatmap_of, notes_of, prepared_of

        self._built += index.report.embedded_windows
        job, args = self._job, self._args
        job.stage("scoring")
        prepared = prepared_of(opened, index, args.target.area)
        scores = ask_scores(opened, index, args, job)
        heat = heatmap_of(prepared, scores)
        self.note_time("score")
        files: dict[str, str | None] = {"heatmap": None, "regions": None}
        notes = notes_of(prepared, scores)
        if "heatmap" in args.products:
            job.stage("writing")
            path = self._folder / f"{args.stem}.tif"
            self._write_heatmap(path, heat, opened)
            files["heatmap"] = self._jobs.places.told(path)
            self.note_time("write")
            job.partial(self._result(opened, index, heat, files, notes=notes))
        counts: dict[str, int] = {}
        if "regions" in args.products:
            counts, path = self._write_regions(opened, heat)
            files["regions"] = self._jobs.places.told(path)
        for part in self._parts:
            with contextlib.suppress(OSError):  # a map program may still show it
                part.unlink()
        return self._result(opened, index, heat, files, counts=counts, notes=notes)

    def _write_heatmap(self, path: Path, heat: Heatmap, opened: Opened) -> None:
        from geoalign_core.engine.search import name_of
        from geoalign_core.export import write_heatmap
        from geoalign_core.settings import SCORE_PROTOCOL

        self._job.token.check()
        tags = {
            "GEOALIGN_QUERY": name_of(self._args), "GEOALIGN_MODEL": opened.encoder.config.name,
            "GEOALIGN_PROTOCOL": SCORE_PROTOCOL,
        }  # fmt: skip
        write_heatmap(path, heat.values, transform=heat.transform, crs=heat.crs, tags=tags, overwrite=True)

    def _write_regions(self, opened: Opened, heat: Heatmap) -> tuple[dict[str, int], Path]:
        from geoalign_core.engine.ladder import climb, frames
        from geoalign_core.engine.search import calibration_of, name_of
        from geoalign_core.export import write_vector

        job, args = self._job, self._args

        def tell(done: int) -> None:
            job.token.check()
            job.progress(done, len(args.rungs), "finding regions")

        known = calibration_of(opened, args)
        found = climb(
            heat, args.rungs, min_area_m2=args.min_area_m2, top=args.top, tell=tell,
            precision=None if known is None else known.precision,
        )  # fmt: skip
        self.note_time("regions")
        job.stage("writing")
        layers = frames(
            found, heat, query=name_of(args), model=opened.encoder.config.name,
            gsd_m=opened.spec.levels[0].canvas.gsd_m,
        )  # fmt: skip
        path = self._folder / f"{args.stem}.gpkg"
        write_vector(path, layers, overwrite=True)
        self.note_time("write")
        return {str(rung): len(some) for rung, some in found.items()}, path

    def _result(
        self, opened: Opened, index: Index, heat: Heatmap, files: dict[str, str | None], *,
        counts: dict[str, int] | None = None, notes: list[str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        from geoalign_core.engine.ladder import best_score, histogram
        from geoalign_core.engine.search import calibration_of, name_of
        from geoalign_core.settings import SCORE_PROTOCOL

        best, known = best_score(heat), calibration_of(opened, self._args)
        return {
            "query": name_of(self._args), "files": {"heatmap": None, "regions": None, **files},
            "histogram": histogram(heat), "counts": counts or {},
            "best_score": None if best is None else round(best, 4),
            "gsd_m": opened.spec.levels[0].canvas.gsd_m, "model": opened.encoder.config.name,
            "protocol": SCORE_PROTOCOL, "calibration": None if known is None else known.curve(),
            "windows": sum(len(entry.positions) for entry in index.shards),
            "built_windows": self._built, "seconds": dict(self._seconds), "notes": notes or [],
        }  # fmt: skip
