"""The folded "Search Options": how to look at the image."""

from __future__ import annotations

from collections import Counter

from qgis.gui import QgsCollapsibleGroupBox, QgsDoubleSpinBox, QgsRasterBandComboBox
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtWidgets import QCheckBox, QComboBox, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QSizePolicy, QWidget

from ..words import tr
from . import look
from .model import SearchOptions


class OptionsBox(QgsCollapsibleGroupBox):
    """Reads and shows `SearchOptions`; everything starts at what suits most images."""

    changed = pyqtSignal()

    def __init__(self) -> None:
        super().__init__(tr("Search Options"))
        self.setSaveCollapsedState(False)
        self.setCollapsed(True)
        self._silent = False
        self._build()
        self._lay_out()
        self._connect()

    def stops(self) -> list[QWidget]:
        """Return the widgets the Tab key visits."""
        return [self.gsd, *self.bands, self.stretch, self.avoid, self.model, self.device, self.area]

    def options(self) -> SearchOptions:
        """Return what is set."""
        bands = tuple(box.currentBand() for box in self.bands)
        return SearchOptions(
            gsd_m=self.gsd.value() or None,
            bands=bands if min(bands) > 0 else None,
            stretch_as_shown=self.stretch.isChecked(),
            avoid=tuple(word.strip() for word in self.avoid.text().split(",") if word.strip()),
            model=self.model.currentData() or "",
            device=self.device.currentData() or "",
            min_area_m2=self.area.value(),
        )

    def set_options(self, options: SearchOptions) -> None:
        """Show options without telling anybody."""
        self._silent = True
        self.gsd.setValue(options.gsd_m or 0)
        for place, box in enumerate(self.bands):
            box.setBand(options.bands[place] if options.bands else -1)
        self.stretch.setChecked(options.stretch_as_shown)
        self.avoid.setText(", ".join(options.avoid))
        _choose(self.model, options.model)
        _choose(self.device, options.device)
        self.area.setValue(options.min_area_m2)
        self._silent = False

    def set_choices(self, models: list[dict], devices: list[dict]) -> None:
        """Offer the models that the engine has and its devices; what was chosen stays chosen."""
        self._silent = True
        ready = [model for model in models if model.get("installed", True)]
        for box, choices in ((self.model, ready), (self.device, devices)):
            titles = Counter(choice.get("title") for choice in choices)
            chosen = box.currentData()
            while box.count() > 1:
                box.removeItem(1)
            for choice in choices:
                title, name = choice.get("title") or choice["name"], choice["name"]
                box.addItem(f"{title} · {name}" if titles[title] > 1 else title, name)  # as two runs of a recipe have
            _choose(box, chosen)
        self._silent = False

    def set_layer(self, layer) -> None:  # noqa: ANN001
        """Offer the bands of a layer."""
        self._silent = True
        for box in self.bands:
            box.setLayer(layer)
            box.setBand(-1)
            box.setEnabled(layer is not None)
        self._silent = False

    def showEvent(self, event) -> None:  # noqa: ANN001
        """The colours are known once the box has its place."""
        super().showEvent(event)
        self.repaint_icon()

    def repaint_icon(self) -> None:
        """Follow the colours of a new theme."""
        look.clear_placeholder(self.avoid)

    def _build(self) -> None:
        self.gsd = _number(tr(" m/px"), tr("Auto"), 3, 1000)
        self.bands = [QgsRasterBandComboBox() for _ in range(3)]
        names = (tr("Band shown as red"), tr("Band shown as green"), tr("Band shown as blue"))
        for box, name in zip(self.bands, names):
            box.setShowNotSetOption(True, tr("Auto"))
            box.setAccessibleName(name)
            box.setToolTip(name)
            _narrow(box, 3)
        self.stretch = QCheckBox(tr("As on the map"))
        self.avoid = QLineEdit()
        self.avoid.setPlaceholderText(tr("shadow, water"))
        self.avoid.setToolTip(tr("Places that look like these words match less. Separate them by commas."))
        self.avoid.setMinimumWidth(96)
        self.model = QComboBox()
        self.device = QComboBox()
        for box in (self.model, self.device):
            box.addItem(tr("Auto"), "")
            _narrow(box, 8)
        self.area = _number(tr(" m²"), tr("Any"), 1, 1e9)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setContentsMargins(8, 8, 8, 8)
        form.setSpacing(6)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        bands = QHBoxLayout()
        bands.setSpacing(4)
        for box in self.bands:
            bands.addWidget(box, 1)
        self._row(form, tr("Ground resolution"), self.gsd, self.gsd)
        self._row(form, tr("Bands"), self.bands[0], bands)
        self._row(form, tr("Brightness"), self.stretch, self.stretch)
        self._row(form, tr("Words to avoid"), self.avoid, self.avoid)
        self._row(form, tr("Model"), self.model, self.model)
        self._row(form, tr("Device"), self.device, self.device)
        self._row(form, tr("Minimum area"), self.area, self.area)

    def _row(self, form: QFormLayout, text: str, buddy: QWidget, field) -> None:  # noqa: ANN001
        label = QLabel(text)
        label.setWordWrap(True)
        label.setBuddy(buddy)
        if not buddy.accessibleName():
            buddy.setAccessibleName(text)
        form.addRow(label, field)

    def _connect(self) -> None:
        for spin in (self.gsd, self.area):
            spin.valueChanged.connect(lambda _value: self._tell())
        for place, box in enumerate(self.bands):
            box.bandChanged.connect(lambda band, place=place: self._on_band(place, band))
        self.stretch.setChecked(True)
        self.stretch.toggled.connect(lambda _on: self._tell())
        self.avoid.editingFinished.connect(self._on_words)
        self._words = self.avoid.text()
        for box in (self.model, self.device):
            box.currentIndexChanged.connect(lambda _index: self._tell())

    def _on_band(self, place: int, band: int) -> None:
        """Either all three bands are chosen or none: the first choice fills the other two."""
        if self._silent:
            return
        self._silent = True
        for other, box in enumerate(self.bands):
            if band < 1:
                box.setBand(-1)
            elif other != place and box.currentBand() < 1:
                box.setBand(min(other + 1, box.count() - 1))
        self._silent = False
        self._tell()

    def _on_words(self) -> None:
        if self.avoid.text() != self._words:
            self._words = self.avoid.text()
            self._tell()

    def _tell(self) -> None:
        if not self._silent:
            self.changed.emit()


def _number(suffix: str, unset: str, decimals: int, maximum: float) -> QgsDoubleSpinBox:
    spin = QgsDoubleSpinBox()
    spin.setRange(0, maximum)
    spin.setDecimals(decimals)
    spin.setSingleStep(0.1 if decimals == 3 else 10)
    spin.setSuffix(suffix)
    spin.setSpecialValueText(unset)
    spin.setClearValue(0)
    spin.setKeyboardTracking(False)
    spin.setMinimumWidth(96)
    spin.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return spin


def _narrow(box: QComboBox, letters: int) -> None:
    box.setMinimumContentsLength(letters)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumWidth(96 if letters > 3 else 66)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def _choose(box: QComboBox, name: str | None) -> None:
    """Choose by name; a name the engine has not told yet is kept."""
    index = box.findData(name or "")
    if index < 0:
        box.addItem(name, name)
        index = box.count() - 1
    box.setCurrentIndex(index)
