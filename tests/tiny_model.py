"""A CLIP with random weights in open_clip's hub layout: quick, and blind, so for plumbing only.

``python -m tests.tiny_model FOLDER`` makes one with a calibration, for tests that run in another Python.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 128, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
CURVE = {"scores": (0.0, 0.5, 1.0), "precisions": (0.0, 0.2, 0.8), "prior": 0.1}


def write_model(folder: Path) -> None:
    """Write weights and configuration."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = open_clip.CLIP(CONFIG["embed_dim"], dict(CONFIG["vision_cfg"]), dict(CONFIG["text_cfg"]))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))


def calibrate(folder: Path) -> None:
    """Put a made-up calibration beside a model."""
    from geoalign_core.models.calibration import Calibration, place_of, write_calibration
    from geoalign_core.models.registry import load_encoder, locate

    encoder = load_encoder(str(folder), device="cpu")
    known = Calibration(encoder.config.name, encoder.score_key, **CURVE, data={"name": "nothing at all"})
    write_calibration(place_of(locate(str(folder))), known)


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
    calibrate(Path(sys.argv[1]))
