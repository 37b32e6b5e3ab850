"""The model card of an exported model: Markdown with the front matter of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import NamedTuple

import jinja2

from animalclf import architectures, config
from animalclf.export.formats import FORMATS
from animalclf.features.known import KEPT
from animalclf.features.known_file import scorer_or_line
from animalclf.metrics.text import metric_lines
from animalclf.models import embedded
from animalclf.rows import ExportCheck
from animalclf.runs import Run
from animalclf.training.checkpoint import ModelInfo

MAIN_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "loss")
MAX_CLASSES = 50  # whose priors are listed


class Licence(NamedTuple):
    """`tag` as the Hugging Face Hub names licences, and a sentence."""

    tag: str
    text: str


def licence(model: config.Model) -> Licence:
    """Of the pretrained weights; that of the training images is for the user to know."""
    yours = "Check also the licence of the training images."
    if model.weights == "none":
        return Licence("other", f"Trained from scratch: no weights of others. {yours}")
    if model.weights == "embedded" and model.name in embedded.FILES:
        package = embedded.FILES[model.name].package
        return Licence("apache-2.0", f"The pretrained weights ({package}) are under the Apache License 2.0. {yours}")
    if model.name.startswith(architectures.TIMM) and model.weights == "imagenet":
        name = architectures.timm_config(model.name.removeprefix(architectures.TIMM)).license or "unknown"
        return Licence(name if name != "unknown" else "other", f"Licence of timm's pretrained weights: {name}. {yours}")
    if model.weights == "imagenet" or architectures.ENTRY.fullmatch(model.weights):
        restriction = architectures.pretrained(model.name, model.weights).licence
        if restriction:
            return Licence("cc-by-nc-4.0", f"{restriction}. {yours}")
        return Licence("other", f"Pretrained weights of torchvision, trained on ImageNet: see its licence. {yours}")
    return Licence("other", f"Pretrained weights of the file {model.weights}: see where it comes from. {yours}")


def model_card(run: Run, info: ModelInfo, files: Mapping[str, str], checks: Sequence[ExportCheck]) -> str:
    """Markdown for the finished run; `files`: names and sizes of the files beside the card; `checks`: of these."""
    environment, result = run.environment(), run.result()
    measured = result.val or result.test
    priors = dict(zip(info.classes, info.prior, strict=True))
    prior_texts = ", ".join(f"{name} {prior:.3f}" for name, prior in list(priors.items())[:MAX_CLASSES])
    more = f" and {len(priors) - MAX_CLASSES} more" if len(priors) > MAX_CLASSES else ""
    spec = info.config.model
    exact, lossy = (
        [form.file for form in FORMATS.entries().values() if form.file in files and form.exact == is_exact]
        for is_exact in (True, False)
    )
    return _template().render(
        name=info.config.name,
        title=f"{info.config.name}, {len(info.classes)} classes",
        network=spec.name,
        weights="trained from scratch" if spec.weights == "none" else f"pretrained weights: {spec.weights}",
        classes=info.classes,
        licence=licence(spec),
        files=files,
        exact=exact,
        lossy=lossy,
        onnx_files=[name for name in files if name.endswith(".onnx")],
        checks={check.file: check for check in checks},
        # Of a single file with other probabilities they would not be true.
        metrics={key: measured[key] for key in MAIN_METRICS if key in measured.metrics} if measured and exact else {},
        lines=metric_lines(measured) if measured else [],
        known={"kept": KEPT, "images": f"{len(scorer.validation):,}"} if (scorer := scorer_or_line(run)) else None,
        images=f"{measured.rows:,}" if measured else "No",
        measured=result.measured if result.val else "test",
        bf16=", in bf16 (the files compute in fp32)" if result.precision == "bf16" else "",
        temperature=info.temperature,
        heads=", ".join(f"{head.kind} {head.temperature:.3f}" for head in result.heads or ()),
        dataset=environment.data.rstrip("/").rpartition("/")[2],  # a folder of this machine says nothing elsewhere
        rows=", ".join(f"{count:,} {split}" for split, count in result.rows.items()),
        fingerprint=environment.data_fingerprint,
        priors=prior_texts + more,
        command=environment.command,
        version=metadata.version("animalclf"),
        torch=environment.versions.get("torch", "unknown"),
        seed=result.seed,
        commit=f", git commit {environment.git_commit}" if environment.git_commit else "",
    )


def _template() -> jinja2.Template:
    text = (resources.files("animalclf.export") / "templates" / "model_card.md").read_text()
    # Markdown, not HTML: names are escaped where YAML needs it.
    return jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(text)
