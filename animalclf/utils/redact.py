"""Secrets in text: credentials in URLs, AWS keys, values of secret environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

HIDDEN = "***"
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
SECRET_FLAGS = ("--notify",)  # and --notify-command: who knows a webhook's URL can write to it
MIN_LENGTH = 8  # of a secret that is looked for in text
MIN_LENGTH_BY_NAME = 16  # of a variable that is secret by its name, as HF_TOKEN

_NAMES = r"[\w.-]*(?:secret|token|passw(?:or)?d|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*|sig"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_IN_URLS = (
    (re.compile(r"(\w+://)[^\s/@:'\"]*:[^\s/@'\"]+@"), rf"\g<1>{HIDDEN}@"),  # scheme://user:password@host
    (re.compile(rf"([?&](?:{_NAMES})=)[^\s&#'\"]+", re.IGNORECASE), rf"\g<1>{HIDDEN}"),
)
_PATTERNS = (*_IN_URLS, (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN))
_ASSIGNMENT = re.compile(rf"((?<![\w.-])(?:{_NAMES})=)[^\s&'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with *** in place of credentials in URLs, AWS key ids and the values of secret environment variables:
    SECRET_VARIABLES, and others that are secret by their name."""
    if len(text) < MIN_LENGTH:
        return text
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_command(text: str) -> str:
    """`redact`, and *** in place of what is assigned to a secret's name, as in AWS_SECRET_ACCESS_KEY=..."""
    return _ASSIGNMENT.sub(rf"\g<1>{HIDDEN}", redact(text))


def redact_arguments(words: Sequence[str]) -> list[str]:
    """The words of a command, with *** in place of the values of SECRET_FLAGS. argparse accepts a flag's beginning."""
    shown, hide = [], False
    for word in words:
        flag, equals, _ = word.partition("=")
        is_secret_flag = len(flag) > 2 and any(flag.startswith(name) or name.startswith(flag) for name in SECRET_FLAGS)
        shown.append(HIDDEN if hide else f"{flag}={HIDDEN}" if is_secret_flag and equals else word)
        hide = is_secret_flag and not equals and not hide
    return shown


def has_credentials(url: str) -> bool:
    """Whether a URL holds a password, or a token or signature in its query (a bucket's keys have no query)."""
    password, query = (pattern for pattern, _ in _IN_URLS)
    return bool(password.search(url) or (url.startswith("http") and query.search(url)))


def is_secret(name: str, value: str, min_length: int = MIN_LENGTH) -> bool:
    """Whether a variable is secret: by its name, unless its value is short or the path of a file (as in
    AWS_SHARED_CREDENTIALS_FILE)."""
    if name in SECRET_VARIABLES:
        return len(value) >= MIN_LENGTH
    return len(value) >= min_length and bool(_SECRET_NAME.fullmatch(name)) and not value.startswith(("/", "~"))


def _secret_values() -> Iterator[str]:
    return (value for name, value in os.environ.items() if is_secret(name, value, MIN_LENGTH_BY_NAME))
