"""What the engine says, as sentences for people."""

from __future__ import annotations

import re

FIRST_WORD = re.compile(r"[^\W\d_]+(?=[\s,;.?!]|$)")
"""A plain word; paths, devices and names of files are left as they are."""


def sentences(*texts: str) -> str:
    """Texts as sentences: with a full stop, and a capital unless they begin with a path or a name."""
    return " ".join(_sentence(text.strip()) for text in texts if text.strip())


def _sentence(text: str) -> str:
    full = text if text.endswith((".", "?", "!", "…")) else f"{text}."
    return full[0].upper() + full[1:] if FIRST_WORD.match(full) else full
