"""Secrets in text: credentials in URLs, AWS keys, values of secret environment variables."""

from __future__ import annotations

import os
import re

HIDDEN = "***"
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
MIN_LENGTH = 8  # of a secret that is looked for in text

_NAMES = r"[\w.-]*(?:secret|token|passw(?:or)?d|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*|sig"
_PATTERNS = (
    (re.compile(r"(\w+://)[^\s/@:'\"]*:[^\s/@'\"]+@"), rf"\g<1>{HIDDEN}@"),  # scheme://user:password@host
    (re.compile(rf"([?&](?:{_NAMES})=)[^\s&#'\"]+", re.IGNORECASE), rf"\g<1>{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
)
_ASSIGNMENT = re.compile(rf"((?<![\w.-])(?:{_NAMES})=)[^\s&'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with *** in place of credentials in URLs, AWS key ids and the values of SECRET_VARIABLES."""
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= MIN_LENGTH:
            text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_command(text: str) -> str:
    """`redact`, and *** in place of what is assigned to a secret's name, as in AWS_SECRET_ACCESS_KEY=..."""
    return _ASSIGNMENT.sub(rf"\g<1>{HIDDEN}", redact(text))
