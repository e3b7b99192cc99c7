"""Every algorithm against the real engine, and what a user may do wrong."""

from __future__ import annotations

import shutil
import time
from array import array
from itertools import pairwise
from math import isnan
from pathlib import Path

import pytest
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QTimer

from qgis_plugin.processing.provider import GeoAlignProvider
from qgis_plugin.settings import Settings

REPO = Path(__file__).resolve().parents[2]
IDS = {"indexraster", "asklayer", "findsimilar", "landcover", "heatmaptoboxes", "tileraster", "enginestatus"}


class Listener(QgsProcessingFeedback):
    """Remembers what was said, and cancels at a word."""

    def __init__(self, cancel_at: str = "") -> None:
        super().__init__(False)
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.percents: list[float] = []
        self.cancel_at = cancel_at
        self.progressChanged.connect(self.percents.append)

    def pushInfo(self, info):  # noqa: N802 - QGIS's name
        self.lines.append(info)
        if self.cancel_at and self.cancel_at in info:
            QTimer.singleShot(0, self.cancel)

    def reportError(self, error, fatalError=False):  # noqa: N802 - QGIS's name
        self.errors.append(error)


@pytest.fixture(scope="module")
def provider(qgis_app, qgis_processing):
    provider = GeoAlignProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    yield provider
    QgsApplication.processingRegistry().removeProvider(provider)


@pytest.fixture
def engine(engine_python, monkeypatch, provider):
    monkeypatch.setenv("GEOALIGN_PYTHON", engine_python)


def run(name, feedback=None, **parameters):
    import processing

    return processing.run(f"geoalign:{name}", parameters, feedback=feedback or Listener())


def polygons(crs, *geometries):
    layer = QgsVectorLayer(f"Polygon?crs={crs}", "polygons", "memory")
    features = []
    for geometry in geometries:
        feature = QgsFeature(layer.fields())
        feature.setGeometry(geometry)
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    return layer


def scores(layer, band) -> array:
    """The pixels of a band."""
    block = layer.dataProvider().block(band, layer.extent(), layer.width(), layer.height())
    return array("f", bytes(block.data()))  # the data belong to the block: keep it


def corner(path) -> str:
    """A small extent in the middle of a raster."""
    extent = QgsRasterLayer(str(path)).extent()
    middle = extent.center()
    return f"{middle.x() - 12},{middle.x() + 12},{middle.y() - 12},{middle.y() + 12} [EPSG:28992]"


def test_every_algorithm_explains_itself(provider):
    assert {algorithm.name() for algorithm in provider.algorithms()} == IDS
    for algorithm in provider.algorithms():
        assert algorithm.displayName()
        assert algorithm.shortDescription()
        assert len(algorithm.shortHelpString()) > 80
        assert len(algorithm.tags()) > 5
        assert algorithm.helpUrl().startswith("https://")
        assert Path(algorithm.svgIconPath()).is_file()
        assert not algorithm.icon().isNull()
        for parameter in algorithm.parameterDefinitions():
            assert parameter.help(), f"{algorithm.name()}: {parameter.name()}"


def test_without_an_engine_the_algorithms_say_what_to_do(provider, monkeypatch):
    settings = Settings()
    settings.engine_mode, settings.engine_command = "command", "/nowhere/python"
    for algorithm in provider.algorithms():
        possible, reason = algorithm.canExecute()
        assert possible == (algorithm.name() == "enginestatus")
        assert possible or "/nowhere/python" in reason
    status = run("enginestatus")
    assert not status["READY"]
    assert "/nowhere/python" in status["PROBLEM"]
    settings.engine_mode, settings.engine_address = "address", "ftp://x"
    assert "Write it like http" in provider.algorithm("asklayer").canExecute()[1]
    settings.engine_mode, settings.engine_command = "managed", ""
    assert "Install" in provider.algorithm("asklayer").canExecute()[1]


def test_tiles_are_not_cut_on_another_machine(provider, sample, tmp_path):
    settings = Settings()
    settings.engine_mode, settings.engine_address = "address", "http://127.0.0.1:9"
    assert not provider.algorithm("tileraster").canExecute()[0]
    assert provider.algorithm("asklayer").canExecute()[0]
    listener = Listener()
    with pytest.raises(QgsProcessingException):
        run("tileraster", listener, INPUT=str(sample), OUTPUT=str(tmp_path / "tiles"))
    assert "on this computer only" in listener.errors[0]


def test_engine_status(engine):
    status = run("enginestatus")
    assert status["READY"]
    assert status["VERSION"] == "0.1.0"
    assert "CPU" in status["DEVICES"]
    assert "geoalign-s" in status["MODELS"]


def test_ask_gives_matches_and_a_heatmap(engine, indexed_sample, tmp_path):
    listener = Listener()
    heatmap = tmp_path / "new folder" / "trees.tif"
    result = run(
        "asklayer",
        listener,
        INPUT=str(indexed_sample),
        QUERY="trees",
        THRESHOLD=0.5,
        OUTPUT="memory:",
        HEATMAP=str(heatmap),
    )
    layer = result["OUTPUT"]
    assert result["COUNT"] == layer.featureCount() > 3
    assert 0.5 < result["BEST_SCORE"] <= 1
    assert [field.name() for field in layer.fields()] == [
        "query", "score", "precision", "rank", "area_m2", "gsd_m", "model",
    ]  # fmt: skip
    assert layer.crs().authid() == "EPSG:28992"
    first = next(layer.getFeatures())
    assert (first["query"], first["model"]) == ("trees", "geoalign-s")
    assert 0 < first["precision"] < 1
    assert first.geometry().isGeosEqual(QgsGeometry.fromRect(first.geometry().boundingBox()))
    raster = QgsRasterLayer(str(heatmap))
    assert raster.isValid()
    assert raster.extent().intersects(QgsRasterLayer(str(indexed_sample)).extent())
    assert listener.percents
    assert not listener.errors


def test_several_questions_give_one_band_each_and_cut_between_percents(engine, indexed_sample, tmp_path):
    listener = Listener()
    result = run(
        "asklayer", listener, INPUT=str(indexed_sample), QUERY="trees; water;trees", THRESHOLD=0.333, SHAPE="polygons",
        MIN_AREA=40, OUTPUT=str(tmp_path / "found.gpkg"), HEATMAP=str(tmp_path / "two.tif"),
    )  # fmt: skip
    layer = QgsVectorLayer(result["OUTPUT"])
    rows = list(layer.getFeatures())
    assert {row["query"] for row in rows} == {"trees", "water"}
    assert min(row["area_m2"] for row in rows) >= 40
    two = QgsRasterLayer(str(tmp_path / "two.tif"))
    assert two.bandCount() == 2
    assert two.dataProvider().sourceHasNoDataValue(1)
    assert [two.bandName(band) for band in (1, 2)] == ["Band 1: trees", "Band 2: water"]
    assert listener.percents == sorted(listener.percents)
    assert listener.percents[-1] == 100
    run("asklayer", INPUT=str(indexed_sample), QUERY="water", OUTPUT="memory:", HEATMAP=str(tmp_path / "one.tif"))
    one = QgsRasterLayer(str(tmp_path / "one.tif"))
    assert "GEOALIGN_MODEL=geoalign-s" in two.htmlMetadata().replace(" ", "")
    assert one.extent() == two.extent()
    alone, stacked = scores(one, 1), scores(two, 2)
    assert len(alone) == one.width() * one.height()
    differences = [abs(a - b) for a, b in zip(alone, stacked, strict=True) if not (isnan(a) and isnan(b))]
    assert max(differences) < 1e-4


def test_heatmap_to_boxes_in_a_model(engine, indexed_sample, tmp_path):
    model = QgsProcessingModelAlgorithm("chain", "test")
    model.addModelParameter(QgsProcessingParameterRasterLayer("IMAGE"), QgsProcessingModelParameter("IMAGE"))
    static, source = (
        QgsProcessingModelChildParameterSource.fromStaticValue,
        QgsProcessingModelChildParameterSource,
    )
    ask = QgsProcessingModelChildAlgorithm("geoalign:asklayer")
    ask.setChildId("ask")
    ask.addParameterSources("INPUT", [source.fromModelParameter("IMAGE")])
    ask.addParameterSources("QUERY", [static("water")])
    ask.addParameterSources("SHAPE", [static("boxes")])
    ask.addParameterSources("DEVICE", [static("cpu")])
    cut = QgsProcessingModelChildAlgorithm("geoalign:heatmaptoboxes")
    cut.setChildId("cut")
    cut.addParameterSources("INPUT", [source.fromChildOutput("ask", "HEATMAP")])
    cut.addParameterSources("THRESHOLD", [static(0.6)])
    cut.addParameterSources("SHAPE", [static("polygons")])
    cut.addParameterSources("QUERY", [static("water")])
    output = QgsProcessingModelOutput("found", "found")
    output.setChildOutputName("OUTPUT")
    cut.setModelOutputs({"found": output})
    model.addChildAlgorithm(ask)
    model.addChildAlgorithm(cut)
    listener, context = Listener(), QgsProcessingContext()
    _, ok = model.run({"IMAGE": str(indexed_sample), "cut:found": str(tmp_path / "found.gpkg")}, context, listener)
    assert ok, listener.errors
    layer = QgsVectorLayer(str(tmp_path / "found.gpkg"))
    assert layer.featureCount() > 0
    assert {row["query"] for row in layer.getFeatures()} == {"water"}


def test_find_similar_from_features_in_another_crs(engine, indexed_sample, tmp_path):
    extent = QgsRasterLayer(str(indexed_sample)).extent()
    matches = run("asklayer", INPUT=str(indexed_sample), QUERY="trees", OUTPUT="memory:")["OUTPUT"]
    best = max(matches.getFeatures(), key=lambda row: row["score"]).geometry()
    from qgis.core import QgsCoordinateTransform

    geographic = QgsCoordinateReferenceSystem("EPSG:4326")
    best.transform(QgsCoordinateTransform(matches.crs(), geographic, QgsProject.instance()))
    result = run(
        "findsimilar", INPUT=str(indexed_sample), EXAMPLES=polygons("EPSG:4326", best), THRESHOLD=0.3, OUTPUT="memory:",
        HEATMAP=str(tmp_path / "like.tif"),
    )  # fmt: skip
    assert result["COUNT"] > 0
    assert all(extent.intersects(row.geometry().boundingBox()) for row in result["OUTPUT"].getFeatures())
    with pytest.raises(QgsProcessingException, match="Give an example"):
        run("findsimilar", INPUT=str(indexed_sample), OUTPUT="memory:")


def test_land_cover_brings_names_and_colours(engine, indexed_sample, tmp_path):
    target = tmp_path / "cover.tif"
    result = run("landcover", INPUT=str(indexed_sample), CLASSES="water; trees; buildings", OUTPUT=str(target))
    assert (result["COUNT"], result["NAMES"]) == (3, "water; trees; buildings")
    layer = QgsRasterLayer(str(target))
    assert layer.isValid()
    assert layer.bandCount() == 1
    assert "trees" in [entry.label for entry in layer.renderer().classes()]
    with pytest.raises(QgsProcessingException, match="at least two"):
        run("landcover", INPUT=str(indexed_sample), CLASSES="water;water", OUTPUT=str(target))


def test_classes_have_names_without_the_engines_style(indexed_sample):
    from qgis_plugin.processing.style import _classes

    layer = QgsRasterLayer(str(indexed_sample), "classes")
    _classes(layer, ["water", "trees"])
    assert [entry.label for entry in layer.renderer().classes()] == ["water", "trees"]
    assert len({entry.color.name() for entry in layer.renderer().classes()}) == 2


def test_tiles(engine, sample, tmp_path):
    tiles = {"INPUT": str(sample), "TILE": "256px", "OVERLAP": "20%", "OUTPUT": str(tmp_path / "tiles")}
    result = run("tileraster", **tiles)
    assert result["COUNT"] == len(list((tmp_path / "tiles").rglob("*.tif"))) > 4
    assert Path(result["MANIFEST"]).is_file()
    with pytest.raises(QgsProcessingException, match="Choose another folder"):
        run("tileraster", **{**tiles, "TILE": "128px"})
    with pytest.raises(QgsProcessingException, match="like 512px"):
        run("tileraster", **{**tiles, "TILE": "nonsense"})


def test_relative_names_count_from_the_folder_of_qgis(engine, sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("tileraster", INPUT=sample.name, TILE="256px", OUTPUT="tiles")
    assert Path(result["OUTPUT"]) == tmp_path / "tiles"
    assert Path(result["MANIFEST"]).is_relative_to(tmp_path)
    result = run("indexraster", INPUT=sample.name, EXTENT=corner(sample))
    assert result["INDEX"].startswith(f"{sample}.geoalign")


def test_choices_may_be_numbers(engine, indexed_sample, tmp_path):
    shapes = []
    for shape in (1, "1", "polygons"):
        found = run("asklayer", INPUT=str(indexed_sample), QUERY="trees", SHAPE=shape, DEVICE=1, OUTPUT="memory:")
        shapes.append([row.geometry().asWkt() for row in found["OUTPUT"].getFeatures()])
    assert shapes[0] == shapes[1] == shapes[2] != []
    with pytest.raises(QgsProcessingException):
        run("asklayer", INPUT=str(indexed_sample), QUERY="trees", SHAPE=7, OUTPUT="memory:")


def test_a_heatmap_is_a_geotiff(engine, indexed_sample, tmp_path):
    with pytest.raises(QgsProcessingException, match=r"ends in \.tif"):
        run("asklayer", INPUT=str(indexed_sample), QUERY="a", OUTPUT="memory:", HEATMAP=str(tmp_path / "x.png"))


def test_masks_that_trouble(engine, indexed_sample, monkeypatch):
    def ask(mask, **more):
        return run("asklayer", INPUT=str(indexed_sample), QUERY="trees", MASK=mask, OUTPUT="memory:", **more)

    with pytest.raises(QgsProcessingException, match="has no polygons"):
        ask(polygons("EPSG:28992"))
    square = QgsGeometry.fromWkt("POLYGON((120000 480000, 130000 480000, 130000 490000, 120000 480000))")
    with pytest.raises(QgsProcessingException, match="does not reach"):
        ask(polygons("EPSG:4326", square))
    extent = QgsRasterLayer(str(indexed_sample)).extent()
    from qgis.core import QgsPointXY

    detailed = QgsGeometry.fromPointXY(QgsPointXY(extent.center())).buffer(extent.width() / 2, 20_000)
    assert len(detailed.asJson()) > 2_000_000
    assert ask(polygons("EPSG:28992", detailed))["COUNT"] > 0


def test_all_runs_share_one_warm_engine_that_ends_with_the_provider(engine, provider, indexed_sample):
    from qgis_plugin.engine.shared import shared

    pids = set()
    for _ in range(2):
        run("asklayer", INPUT=str(indexed_sample), QUERY="water", OUTPUT="memory:")
        pids.update(shared.pids())
    assert len(pids) == 1
    provider.unload()
    assert not shared.pids()
    assert not Path(f"/proc/{pids.pop()}").exists()


def test_sentences_read_well_in_qgis():
    from qgis_plugin.sentences import sentences

    assert sentences("cuda:0 is not there", "choose the CPU") == "cuda:0 is not there. Choose the CPU."
    assert sentences("/data/site.tif: is empty", "look elsewhere") == "/data/site.tif: is empty. Look elsewhere."
    assert sentences("", "start it again") == "Start it again."


def test_every_stage_of_the_engine_has_words():
    """Read from the engine's sources, so that a new stage is not forgotten."""
    import re

    from qgis_plugin.stages import stage_text

    sources = [*REPO.glob("geoalign_core/engine/*.py"), *REPO.glob("geoalign_core/indexing/*.py")]
    named = re.compile(r"""job\.(?:stage\(|progress\(.*, )"([a-z ]+)\"""")
    stages = {stage for path in sources for stage in named.findall(path.read_text(encoding="utf-8"))}
    assert {"embedding", "scoring", "finding regions", "planning tiles"} <= stages
    known = (REPO / "qgis_plugin" / "stages.py").read_text(encoding="utf-8")
    assert [stage for stage in stages if f'"{stage}"' not in known] == []
    assert stage_text("tiling a.tif") == "Cutting a.tif"


def test_index_of_two_images_as_a_batch(engine, sample, tmp_path):
    second = Path(shutil.copy(sample, tmp_path / "second.tif"))
    algorithm = QgsApplication.processingRegistry().algorithmById("geoalign:indexraster")
    for path in (sample, second):
        parameters = {"INPUT": str(path), "EXTENT": corner(path)}
        results, ok = algorithm.run(parameters, QgsProcessingContext(), Listener())
        assert ok
        assert Path(results["INDEX"]).is_dir()
        assert results["INDEX"].startswith(f"{path}.geoalign")
        assert results["ROWS"] > 0


def test_cancel_ends_soon(engine, sample):
    listener = Listener(cancel_at="Reading the image")
    begun = time.monotonic()
    with pytest.raises(QgsProcessingException):
        run("indexraster", listener, INPUT=str(sample))
    assert listener.isCanceled()
    assert time.monotonic() - begun < 60


def test_the_main_thread_stays_free(engine, indexed_sample, qtbot):
    """As the toolbox runs it: in a task, while timers of the main thread go on."""
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geoalign:asklayer")
    context, listener = QgsProcessingContext(), Listener()
    parameters = {"INPUT": str(indexed_sample), "QUERY": "water", "OUTPUT": "memory:"}
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(20)
    task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, listener)
    with qtbot.waitSignal(task.executed, timeout=120_000) as executed:
        QgsApplication.taskManager().addTask(task)
    ok, results = executed.args
    assert ok, listener.errors
    assert results["COUNT"] > 0
    assert max(later - sooner for sooner, later in pairwise(ticks)) < 1.0


def test_questions_that_cannot_be_asked(engine, indexed_sample, tmp_path):
    with pytest.raises(QgsProcessingException, match="Type what to look for"):
        run("asklayer", INPUT=str(indexed_sample), QUERY=" ; ", OUTPUT="memory:")
    placeless = QgsRasterLayer(str(indexed_sample), "no_crs")
    placeless.setCrs(QgsCoordinateReferenceSystem())
    QgsProject.instance().addMapLayer(placeless)
    listener = Listener()
    with pytest.raises(QgsProcessingException):
        run("asklayer", listener, INPUT=placeless, QUERY="water", OUTPUT="memory:")
    assert "coordinate system" in listener.errors[0]
    QgsProject.instance().removeMapLayer(placeless)  # or Processing would take it for the path
    far = polygons("EPSG:4326", QgsGeometry.fromWkt("POLYGON((10 10, 11 10, 11 11, 10 11, 10 10))"))
    with pytest.raises(QgsProcessingException, match="misses the raster"):
        run("asklayer", INPUT=str(indexed_sample), QUERY="water", MASK=far, OUTPUT="memory:")
    far = polygons("EPSG:4326", QgsGeometry.fromWkt("POLYGON((6 52, 6.1 52, 6.1 52.1, 6 52))"))
    with pytest.raises(QgsProcessingException, match="share no ground"):
        run(
            "asklayer",
            INPUT=str(indexed_sample),
            QUERY="water",
            MASK=far,
            EXTENT=corner(indexed_sample),
            OUTPUT="memory:",
        )


def test_a_layer_that_is_no_file_is_drawn(engine, sample, tmp_path):
    """A colour table makes QGIS draw differently from the file only when the provider is no local file."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "canal.zip", "w") as archive:
        archive.write(sample, "canal.tif")
    layer = QgsRasterLayer(f"/vsizip/{tmp_path}/canal.zip/canal.tif", "zipped")
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    listener = Listener()
    result = run("asklayer", listener, INPUT=layer, QUERY="water", EXTENT=corner(sample), OUTPUT="memory:")
    assert any("Drawing" in line for line in listener.lines)
    assert result["BEST_SCORE"] > 0


def test_outputs_are_styled_when_they_are_loaded(engine, indexed_sample):
    import processing

    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    parameters = {
        "INPUT": str(indexed_sample),
        "QUERY": "water",
        "OUTPUT": "TEMPORARY_OUTPUT",
        "HEATMAP": "TEMPORARY_OUTPUT",
    }
    result = processing.runAndLoadResults("geoalign:asklayer", parameters, feedback=Listener(), context=context)
    layers = {layer.name(): layer for layer in QgsProject.instance().mapLayers().values()}
    assert layers["Matches"].labelsEnabled()
    assert layers["Matches"].attributeAlias(1)
    assert layers["Heatmap"].renderer().type() == "singlebandpseudocolor"
    assert result["COUNT"] > 0
