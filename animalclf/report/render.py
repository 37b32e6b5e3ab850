"""Templates to HTML: one jinja2 environment that escapes every value and refuses an undefined one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from animalclf.errors import UserError
from animalclf.metrics.text import p_value
from animalclf.utils.console import duration
from animalclf.utils.text import percent

NONE = "–"


def decimals(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number with `digits` decimals; a dash for None."""
    return NONE if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def thousands(value: float | None) -> str:
    """A whole number with separators: 21,179; a dash for None."""
    return NONE if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Seconds as 3 min 20 s; a dash for None."""
    return NONE if value is None else duration(value)


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("animalclf.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {filter.__name__: filter for filter in (decimals, thousands, percent, p_value, seconds)}


def script(name: str) -> Markup:
    """The text of templates/`name`, a script of ours."""
    assert ENVIRONMENT.loader
    return Markup(ENVIRONMENT.loader.get_source(ENVIRONMENT, name)[0])


def script_hash(text: str) -> str:
    """What allows this script in a Content-Security-Policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def render(template: str, scripts: Sequence[str] = (), /, **values: object) -> str:
    """The HTML of templates/`template`; of a page with `scripts`, the only ones that its policy allows. Raises
    UserError for a template that is not there, jinja2.UndefinedError naming a variable that `values` lacks."""
    try:
        hashes = [script_hash(text) for text in scripts]
        return ENVIRONMENT.get_template(template).render(values, scripts=scripts, hashes=hashes)
    except jinja2.TemplateNotFound as error:
        raise UserError(f"animalclf/report/templates/{error.name}: no such template; add the file") from error
