"""Reproduction: the data, commands, versions and configurations of the runs."""

from animalclf import config as configuration
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


@register("reproduction", title="Configuration and commands", order=130)
def reproduction(data: ReportData) -> Content:
    runs = []
    for record in data.runs:
        environment = record.environment
        runs.append(
            {
                "label": record.label,
                "root": record.run.root,
                "git_commit": environment.git_commit or "unknown",
                "python": environment.python,
                "versions": environment.versions,
                "platform": environment.platform,
                "config": configuration.to_yaml(record.config),
            }
        )
    commands = list(dict.fromkeys(record.environment.command for record in data.runs))
    return Content({"prepared": data.prepared, "commands": commands, "runs": runs})
