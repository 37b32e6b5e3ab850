"""Known holes in the packages of dev.lock, by pip-audit: `make audit`.

Exit status 1 for a hole that audit-exceptions.txt does not accept, and, with --strict (in CI), for packages that could
not be checked because no vulnerability database is reachable.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
EXCEPTIONS = FOLDER / "audit-exceptions.txt"
COMMAND = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement"]


def main(strict: bool) -> int:
    pip_audit = [str(Path(sys.executable).with_name("pip-audit")), *COMMAND, str(FOLDER / "dev.lock")]
    done = subprocess.run(pip_audit, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        return report([], [done.stderr.strip().splitlines()[-1]], strict)
    packages = json.loads(done.stdout)["dependencies"]
    unchecked = [f"{package['name']}: {package['skip_reason']}" for package in packages if "skip_reason" in package]
    holes = [
        f"{package['name']}=={package['version']}: {hole['id']}, fixed in {hole['fix_versions'] or 'no version'}"
        for package in packages
        for hole in package.get("vulns", ())
        if not accepted() & {hole["id"], *hole["aliases"]}
    ]
    print(f"audit: {len(packages) - len(unchecked)} of {len(packages)} packages checked, {len(holes)} holes")
    return report(holes, unchecked, strict)


def accepted() -> set[str]:
    """The ids in audit-exceptions.txt. Raises ValueError for a line without a reason."""
    ids = set()
    for line in EXCEPTIONS.read_text().splitlines():
        name, _, reason = line.partition(" ")
        if name and not name.startswith("#"):
            if not reason.strip():
                raise ValueError(f"{EXCEPTIONS}: {name} has no reason")
            ids.add(name)
    return ids


def report(holes: list[str], unchecked: list[str], strict: bool) -> int:
    for hole in holes:
        print(hole)
    if unchecked:
        print(f"audit: a vulnerability database cannot be reached from here, so nothing is known of {unchecked[0]}")
    return int(bool(holes) or (strict and bool(unchecked)))


if __name__ == "__main__":
    sys.exit(main("--strict" in sys.argv[1:]))
