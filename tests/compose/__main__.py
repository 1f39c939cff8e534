"""`make compose-test`: the stack of docker-compose.yml on a real engine, through all that its users do with it.

    .venv/bin/python -m tests.compose --cache ~/.cache/reid-compose-test

Uses the engine that the Docker client reaches, or starts one (as root, with Debian's docker.io). Base images that
cannot be pulled are replaced by stand-ins, which are kept in the folder of --cache. Prints a table. Ends with status 0
where every step passed, 1 where one failed, and 77 where no engine or no base image could be had: nothing was tested.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from service.cli.client import Refused
from tests.compose.bases import NoBases, make_base, missing_bases
from tests.compose.engine import NoEngine, engine
from tests.compose.report import Failed, Report
from tests.compose.stack import PROJECT, Stack
from tests.compose.steps import STEPS
from tests.compose.wheels import download, served

NOT_TESTED = 77


def main() -> int:
    options = _parse_options()
    report = Report()
    try:
        with ExitStack() as ending:
            with report.step("engine") as row:
                row.note(ending.enter_context(engine()))
            with report.step("base images") as row:
                row.note(_provide_bases(options.cache, ending))
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="reid-compose-")))
            _run_steps(Stack(folder, _free_ports()), report)
    except (NoEngine, NoBases) as reason:
        print(f"Not tested: {reason}", file=sys.stderr)
        return NOT_TESTED
    print(f"\n{report.as_table()}")
    return 0 if report.has_passed else 1


def _run_steps(stack: Stack, report: Report) -> None:
    try:
        for step in STEPS:
            step(stack, report)
    except (Failed, Refused) as error:
        report.rows[-1].has_passed = False
        print(f"FAILED: {error}", file=sys.stderr)
    finally:
        stack.remove()


def _provide_bases(cache: Path, ending: ExitStack) -> str:
    missing = missing_bases()
    if not missing:
        return "as pulled"
    environment = _package_environment(cache, ending) if any("python" in name for name in missing) else {}
    for name in missing:
        make_base(name, cache, environment if "python" in name else {})
    return f"stand-ins for {', '.join(missing)}"


def _package_environment(cache: Path, ending: ExitStack) -> dict[str, str]:
    """Returns the settings by which pip in a stand-in takes its packages from this machine."""
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    download(PROJECT, "cpu", wheels)
    words = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    gateway = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    port = ending.enter_context(served(wheels, gateway))
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"http://{gateway}:{port}/", "PIP_TRUSTED_HOST": gateway}


def _free_ports() -> int:
    """A port that is free, and so, most likely, are the two behind it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65533)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path.home() / ".cache" / "reid-compose-test"
    parser.add_argument("--cache", type=Path, default=cache, help=f"where stand-ins are kept (default {cache})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
