"""CastDet with our model inside: the text classifier, in the form that its detector loads.

CastDet (Li et al. 2023, arXiv 2311.11646; repository lizzy8587/CastDet, revision 80a802e) reads its class vectors from
an array file of C + 1 rows: the classes in the order of the data set's ``CLASSES`` and, last, the background, which is
the mean of the classes. It makes them with one template, ``a photo of {}``. docs/castdet.md is the whole recipe.

    geoalign-eval castdet --model geoalign-s --classes classes.txt -o vectors.npy
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tiling.clikit import run_cli
from tiling.errors import UsageError
from tiling.files import atomic_file, refuse_existing
from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import Encoder

TEMPLATE = "a photo of {}"
TEMPERATURE = 100.0
"""CastDet's ``clip_logit_scale``: the factor on cosines before the softmax of pseudo labels."""
SUFFIXES = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True, slots=True)
class Classifier:
    """C classes and a background."""

    names: tuple[str, ...]
    """In the data set's order."""
    vectors: NDArray[np.float32]
    """(C, D), of length 1."""
    background: NDArray[np.float32]
    """(D,), of length 1: the direction of the classes' mean."""
    templates: tuple[str, ...]
    model: str
    """Key of the weights."""
    temperature: float = TEMPERATURE

    @property
    def table(self) -> NDArray[np.float32]:
        """(C + 1, D) with the background last: what CastDet loads."""
        return np.concatenate([self.vectors, self.background[None]]).astype(np.float32)

    def probabilities(self, regions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, C + 1) shares of classes and background for (N, D) vectors, as CastDet labels crops."""
        from scipy.special import softmax

        unit = regions / np.linalg.norm(regions, axis=1, keepdims=True)
        shares: NDArray[np.float32] = softmax(self.temperature * unit @ self.table.T, axis=1)
        return shares


def classifier(
    encoder: Encoder,
    names: Sequence[str],
    *,
    words: Sequence[str] | None = None,
    templates: Sequence[str] = (TEMPLATE,),
) -> Classifier:
    """Make the classifier of a model.

    Args:
        encoder: The model.
        names: Classes in the data set's order.
        words: What the model is told of each; the names by default.
        templates: Sentences with one ``{}`` each; a class is the normalised mean over them.

    Raises:
        ModelError: The model has no text tower.
        UsageError: There is no class, one is named twice, or a template has no ``{}``.
        DataError: The classes cancel out, so that there is no background.
    """
    from geoalign_core.models.encoder import require_text

    require_text(encoder)
    told = tuple(names) if words is None else tuple(words)
    if not names or len(set(names)) < len(names) or len(told) != len(names):
        raise UsageError("classes are named once each, with words for each", measured=f"{len(names)}, {len(told)}")
    if not templates or any(form.count("{}") != 1 for form in templates):
        raise UsageError("a template has one {}", measured=str(list(templates))[:60], remedy=f'write "{TEMPLATE}"')
    sentences = [form.replace("{}", word) for word in told for form in templates]
    each = np.asarray(encoder.encode_text(sentences), np.float64).reshape(len(told), len(templates), -1)
    vectors = _unit(each.mean(axis=1))
    return Classifier(
        tuple(names), vectors.astype(np.float32), _unit(vectors.mean(axis=0, keepdims=True))[0].astype(np.float32),
        tuple(templates), encoder.key,
    )  # fmt: skip


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths < 1e-6).any():
        raise DataError("a class or the background has no direction", remedy="check the model and the classes")
    unit: NDArray[np.float64] = vectors / lengths
    return unit


def write_classifier(path: Path, made: Classifier, *, overwrite: bool = False) -> None:
    """Write a classifier.

    ``.npy`` holds :attr:`Classifier.table` and nothing else, as CastDet's ``vector_path`` wants it. ``.npz`` holds
    ``vectors``, ``background``, ``temperature``, ``names``, ``templates`` and ``model``; ``.safetensors`` the first
    three, the others in its header.

    Raises:
        UsageError: The suffix is another.
        OutputExistsError: The file is there and ``overwrite`` is false.
        OutputWriteError: The disk refuses.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError("has no suffix that is known", path=path, remedy=f"use one of {', '.join(SUFFIXES)}")
    refuse_existing(path, overwrite=overwrite)
    arrays = {
        "vectors": made.vectors, "background": made.background, "temperature": np.array([made.temperature], np.float32)
    }  # fmt: skip
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        if path.suffix == ".npy":
            np.save(file, made.table, allow_pickle=False)
        elif path.suffix == ".npz":
            texts = {"names": made.names, "templates": made.templates, "model": [made.model]}
            np.savez(file, **arrays, **{name: np.array(value, dtype=np.str_) for name, value in texts.items()})  # type: ignore[arg-type]
        else:
            import json

            from safetensors.numpy import save

            file.write(save(arrays, {
                "names": json.dumps(made.names), "templates": json.dumps(made.templates), "model": made.model
            }))  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", default="geoalign-s", show_default=True, metavar="NAME|PATH", help="Model name or folder.")
@click.option("--classes", type=click.Path(dir_okay=False, path_type=Path), required=True, help="One class a line.")
@click.option("--words", type=click.Path(dir_okay=False, path_type=Path), help="JSON from class to its words.")
@click.option("--template", "templates", multiple=True, help=f'May be repeated.  [default: "{TEMPLATE}"]')
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help=", ".join(SUFFIXES))
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def main(model: str, classes: Path, words: Path | None, templates: tuple[str, ...], out: Path, overwrite: bool) -> None:
    """Write the class vectors that CastDet loads."""
    from geoalign_core.models.registry import load_encoder
    from training.evaluation.layouts.classes import class_names
    from training.evaluation.layouts.regions import words_of

    names = class_names(classes)
    made = classifier(load_encoder(model), names, words=words_of(names, words), templates=templates or (TEMPLATE,))
    write_classifier(out, made, overwrite=overwrite)
    click.echo(f"{len(names)} classes and the background, {made.vectors.shape[1]} numbers each: {out}")


if __name__ == "__main__":
    sys.exit(run_cli(main, name="castdet"))
