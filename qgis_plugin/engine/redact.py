"""Takes out of a text what must not leave the computer: sign-ins, the home folder, the user's name."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

_NAME = r"[\w-]*(?:token|passw(?:or)?d|passphrase|pwd|secret|authcfg|api[_-]?key|access[_-]?key)"
_QUOTED = r"\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?"
_WORD = r"[^\s&,;\"']+"
_HIDDEN = (
    # an address with a sign-in; a careless password may hold an @ itself
    (re.compile(r"://[^/\s\"'<>]+@"), "://…@"),
    (re.compile(r"(?i)(\bauthorization[\"']?[ \t]*[=:][ \t]*[\"']?)(?:\w+[ \t]+)?[^\s\"',;]+"), r"\1…"),
    # what follows in a sentence is no sign-in: "the bearer token", "basic settings"
    (re.compile(r"(?i)(\bbearer[ \t]+)(?!(?:tokens?|auth\w*|header|sign|of|is|or)\b)[\w.~+/=-]+"), r"\1…"),
    (re.compile(r"((?i:\bbasic)[ \t]+)(?=\S*[A-Z0-9=])[\w+/=-]{8,}"), r"\1…"),
    (re.compile(rf"(?i)(\b{_NAME}\b[\"']?[ \t]*[=:][ \t]*)(?:{_QUOTED}|{_WORD})"), r"\1…"),
    (re.compile(rf"(?i)(--{_NAME}[ \t]+)(?!-|(?:or|and|to|is|in|for|with|must)\b)(?:{_QUOTED}|{_WORD})"), r"\1…"),
    (re.compile(r"(?i)([?&](?:key|sig|signature|auth|code)=)[^\s&\"'<>]+"), r"\1…"),
)


def hide_sign_ins(text: str) -> str:
    """Without passwords, tokens and keys."""
    for pattern, replacement in _HIDDEN:
        text = pattern.sub(replacement, text)
    return text


def redact(text: str, home: str | None = None, user: str | None = None) -> str:
    """Without the home folder, the user's name, and anything that looks like a sign-in."""
    home = str(Path.home()) if home is None else home
    text = hide_sign_ins(text)
    for form in {home, home.replace("\\", "/"), home.replace("\\", "\\\\")}:
        if len(form) > 1:
            text = re.sub(re.escape(form) + r"(?![\w.-])", "~", text, flags=re.IGNORECASE)
    user = _user() if user is None else user
    if len(user) > 2:
        text = re.sub(rf"(?<![\w]){re.escape(user)}(?![\w])", "USER", text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""  # no user name: nothing to hide
