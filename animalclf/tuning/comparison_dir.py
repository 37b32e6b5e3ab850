"""The comparison folder (local or s3://): the only place that knows its file names, and what is known of each trial.

comparison.yaml      the data and all trials, resolved
summary.json         the state of every trial, as `compare` returns it
trials/<slug>/       ordinary run folders
"""

from __future__ import annotations

from typing import Any

import yaml

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.runs import Run
from animalclf.training.driver import Show
from animalclf.tuning.spec import ComparisonSpec, monitored_metric
from animalclf.utils import storage

PLAN, SUMMARY, TRIALS = "comparison.yaml", "summary.json", "trials"
ENDED = ("finished", "stopped")  # states that a resume leaves alone


def open_folder(out: str, resume: bool) -> dict[str, Any]:
    """The spec and summary of the comparison that is in `out` already; empty for a new one."""
    if not storage.exists(storage.join(out, PLAN)):
        if resume:
            raise UserError(f"{out}: no comparison to resume here ({PLAN} is missing); start it without --resume")
        if Run(out).exists():
            raise UserError(f"{out}: is the folder of a single run; choose another --out")
        return {}
    if not resume:
        raise UserError(f"{out}: there is a comparison here already; continue it or add trials to it with --resume, or choose another --out")
    before = dict(yaml.safe_load(storage.read_bytes(storage.join(out, PLAN))))
    has_summary = storage.exists(storage.join(out, SUMMARY))
    return before | {"summary": storage.read_json(storage.join(out, SUMMARY))["trials"] if has_summary else []}


def check_same_data(out: str, before: dict[str, Any], facts: dict[str, Any]) -> None:
    """Raises UserError where the comparison in `out` was made on other pictures."""
    if not before:
        return
    was = before["data"]
    apart = [f"{key}: {was[key]} -> {facts[key]}" for key in ("classes", "train", "val", "test") if was[key] != facts[key]]
    apart += ["other files, labels or splits"] if not apart and was["pictures"] != facts["pictures"] else []
    for kind, one in facts["prepared"].items():
        then = was["prepared"].get(kind, one)["fingerprint"]
        apart += [f"fingerprint at {kind}: {then[:12]} -> {one['fingerprint'][:12]}"] if not apart and then != one["fingerprint"] else []
    if apart:
        raise UserError(
            f"{out}: compares on other pictures than {facts['source']} (was {was['source']}): {'; '.join(apart)}; "
            "resume with the same data, or choose another --out"
        )


def known_trials(spec: ComparisonSpec, out: str, before: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is known of each trial, by slug: those of an earlier start, and those of the spec. Raises UserError where a run folder has a trial's name
    and another configuration."""
    # The folder may have been moved since.
    entries = {entry["slug"]: {**entry, "run": storage.join(out, TRIALS, entry["slug"])} for entry in before.get("summary", [])}
    for trial in () if spec.searching else spec.trials:
        run = Run(storage.join(out, TRIALS, trial.slug))
        if run.exists():
            changed = configuration.differences(run.config(), trial.config)
            if changed:
                raise UserError(
                    f"{run.root}: has another configuration ({'; '.join(changed)}); give the recipe another `name`, or choose another --out"
                )
        entries.setdefault(trial.slug, _entry(trial.slug, trial.name, trial.config.seed, run.root))
        if entries[trial.slug]["state"] not in ENDED:
            entries[trial.slug] |= {"state": "waiting", "reason": ""}
    for entry in entries.values():
        if Run(entry["run"]).finished():
            entry |= {"state": "finished", "reason": ""}
    return entries


def _entry(slug: str, name: str, seed: int, run: str) -> dict[str, Any]:
    return {"slug": slug, "name": name, "seed": seed, "run": run, "state": "waiting", "reason": "", "epochs": 0, "best": None}


def write_spec(out: str, spec: ComparisonSpec, facts: dict[str, Any], before: dict[str, Any]) -> None:
    """comparison.yaml: the data and all trials, resolved; on a resume with those of before."""
    trials: dict[str, Any] = {item["slug"]: item for item in before.get("trials", [])}
    for trial in () if spec.searching else spec.trials:
        trials[trial.slug] = {"slug": trial.slug, "name": trial.name, "seed": trial.config.seed, "config": configuration.to_dict(trial.config)}
    data = facts | {"prepared": {**before.get("data", {}).get("prepared", {}), **facts["prepared"]}}
    content = {"data": data, "schedule": spec.schedule, "searcher": spec.searcher, "trials": list(trials.values())}
    storage.write_bytes(storage.join(out, PLAN), yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


class Board:
    """What is known of the trials: kept for the summary, shown to people."""

    def __init__(self, out: str, facts: dict[str, Any], entries: dict[str, dict[str, Any]], config: Config, show: Show) -> None:
        self.out, self.facts, self.entries, self.show = out, facts, entries, show
        self.metric, self.mode = monitored_metric(config)
        self.finished_before = {slug for slug, entry in entries.items() if entry["state"] == "finished"}
        for slug, entry in entries.items():
            self._history(entry)
            self.show({"trial": slug, **entry})
        self.write()

    def take(self, event: dict[str, Any]) -> None:
        """An event of a trial's process or of Tune."""
        entry = self.entries.get(event["trial"])
        if entry is None:
            entry = self.entries[event["trial"]] = _entry(event["trial"], event["name"], event["seed"], event["run"]) | {"values": event["values"]}
        if "tune" in event:
            if not event["ended"]:
                self._state(entry, event["tune"])
        elif "failed" in event:
            if entry["state"] == "running":  # and not ended from here
                entry["reason"] = event["failed"]
        else:
            self.show(event)

    def _state(self, entry: dict[str, Any], state: str) -> None:
        if state == "complete":
            state = "finished" if Run(entry["run"]).finished() else "stopped"
        if state == "running":
            entry["reason"] = ""
        elif state == "stopped":
            entry["reason"] = "fell behind the others (ASHA)"
        elif state == "failed":
            entry["reason"] = entry["reason"] or "its process died; see Ray's log files"
        entry["state"] = state
        self._history(entry)
        self.show({"trial": entry["slug"], **entry})
        self.write()

    def _history(self, entry: dict[str, Any]) -> None:
        history = Run(entry["run"]).metrics()
        values = [row[self.metric] for row in history if self.metric in row]
        entry |= {"epochs": len(history), "best": (min if self.mode == "min" else max)(values) if values else None}

    def close(self) -> None:
        """Trials that run no longer without an end are interrupted."""
        for entry in self.entries.values():
            if entry["state"] in ("running", "waiting"):
                self._history(entry)
                finished = Run(entry["run"]).finished()
                entry |= {"state": "finished", "reason": ""} if finished else {"state": "interrupted", "reason": "continue with --resume"}
        self.write()

    def new_runs(self) -> list[str]:
        """The run folders that finished while this looked on."""
        return [entry["run"] for slug, entry in self.entries.items() if entry["state"] == "finished" and slug not in self.finished_before]

    def summary(self) -> dict[str, Any]:
        runs = [entry["run"] for entry in self.entries.values() if entry["state"] == "finished"]
        return {"comparison": self.out, "data": self.facts, "monitor": self.metric, "trials": list(self.entries.values()), "runs": runs}

    def write(self) -> None:
        storage.write_json(storage.join(self.out, SUMMARY), self.summary())
