"""Reproduction: the data, commands, versions and configurations of the runs."""

from animalclf import config as configuration
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


@register("reproduction", title="Configuration and commands", order=130)
def reproduction(data: ReportData) -> Content:
    runs = []
    for facts in data.runs:
        environment = facts.environment
        runs.append(
            {
                "label": facts.label,
                "root": facts.run.root,
                "git_commit": environment.git_commit or "unknown",
                "python": environment.python,
                "versions": environment.versions,
                "platform": environment.platform,
                "config": configuration.to_yaml(facts.config),
            }
        )
    commands = list(dict.fromkeys(facts.environment.command for facts in data.runs))
    return Content({"prepared": data.prepared, "commands": commands, "runs": runs})
