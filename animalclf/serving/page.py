"""The page on which a person drops images: one file that fetches nothing but the answers."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources


@functools.cache
def page() -> str:
    return (resources.files("animalclf.serving") / "templates" / "page.html").read_text(encoding="utf-8")


def _hashes(tag: str) -> str:
    """Of the page's own scripts or styles, in the form of a Content-Security-Policy."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page(), re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts)


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hashes('script')}",
        f"style-src {_hashes('style')}",
        "img-src blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
