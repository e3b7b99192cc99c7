"""The line below the slider: how often places right at the minimum match are right."""

from __future__ import annotations

from html import escape

from ..words import percent, tr
from .model import Curve
from .pieces import ElidedLabel


class PrecisionLine(ElidedLabel):
    """One quiet line that is always there, so that nothing moves; the tool tip says where the number comes from."""

    def __init__(self) -> None:
        super().__init__()
        self._curve: Curve | None = None
        self._by_example = False

    def set_curve(self, curve: Curve | None, by_example: bool) -> None:
        """Take what an answer's scores mean; shown with the next threshold."""
        self._curve, self._by_example = curve, by_example

    def set_threshold(self, limit_pct: int) -> None:
        """Say what a minimum match means."""
        if self._curve is None:
            text, told = tr("The match is a rank, not a probability"), (self._reason(),)
        else:
            share = percent(self._curve.precision(limit_pct / 100))
            text = tr("About {percent} of places at this limit are right").format(percent=share)
            told = text, self._reason()
        self.setText(text)
        self.setAccessibleName(text)
        self.setAccessibleDescription(self._reason())
        # What was counted on is anybody's text, and Qt takes tool tips that look like HTML for HTML.
        self.setToolTip("".join(f"<p>{escape(one)}</p>" for one in told))

    def _reason(self) -> str:
        if self._curve is not None:
            text = tr(
                "Counted on {data}, where {prior} of the places were what was asked for. "
                "Rarer things are right less often."
            )
            return text.format(data=self._curve.data or tr("labelled images"), prior=percent(self._curve.prior))
        if self._by_example:
            return tr("Only questions in words are calibrated: with examples the match is a rank, not a probability.")
        return tr("This model is not calibrated: the match is a rank, not a probability.")
