"""The sections of the report: what a section is, and its registration.

    @register("best_epochs", title="Best epochs", order=115, when=lambda data: bool(data.rows))
    def best_epochs(data: ReportData) -> Content:
        return Content({"rows": data.rows})

These lines and the imports are all of sections/best_epochs.py; templates/best_epochs.html shows `rows`. A section that
needs the images of a prepared set has `when=lambda data: data.prepared is not None`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from animalclf.report.data import ReportData
from animalclf.utils.registry import Registry


@dataclass(frozen=True)
class Content:
    """The content of a section. `values`: the variables of its template, plain data; `plots`: figures by the name of
    their PNG file, unique on the page, which the template shows as `{{ plots[name] }}`; `images`: manifest paths of
    images whose thumbnails the template shows; `script`: the file in templates/ that runs at the end of the page."""

    values: Mapping[str, object] = field(default_factory=dict)
    plots: Mapping[str, Figure] = field(default_factory=dict)
    images: Sequence[str] = ()
    script: str = ""


Gather = Callable[[ReportData], Content]


@dataclass(frozen=True)
class Section:
    """`name`: its id on the page and its template, templates/<name>.html; `order`: its position on the page, the
    smallest first; `when`: whether a report shows it."""

    name: str
    title: str
    order: int
    when: Callable[[ReportData], bool]
    gather: Gather


SECTIONS: Registry[Section] = Registry("report section", package="animalclf.report.sections")


def register(
    name: str, *, title: str, order: int, when: Callable[[ReportData], bool] = lambda data: True
) -> Callable[[Gather], Gather]:
    """Decorator that makes a function the section `name`. Raises ValueError for a taken name."""

    def decorate(gather: Gather) -> Gather:
        SECTIONS.register(name)(Section(name, title, order, when, gather))
        return gather

    return decorate
