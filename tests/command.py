"""The `lnln` command as a user has it: another process, its two streams, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LNLN = str(Path(sys.executable).with_name("lnln"))


@dataclass(frozen=True)
class Outcome:
    """What one call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON object and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def refusal(self) -> str:
        """The one line of a refusal."""
        assert self.code == 1, f"exit {self.code}\n{self.out}\n{self.err}"
        lines = [line for line in self.err.splitlines() if line.startswith("lnln: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err, self.err
        return lines[0].removeprefix("lnln: ")


def lnln(
    *arguments: str | Path,
    store: str | Path,
    as_json: bool = True,
    timeout_seconds: float = 280,
    **environment: str,
) -> Outcome:
    """Run `lnln --store STORE --json ARGUMENTS`, with a cache of models beside the store where that is a folder.

    as_json: without it, what a person reads.
    """
    if "://" not in str(store):
        environment = {"LNLN_CACHE": f"{store}-cache", **environment}
    done = subprocess.run(
        [LNLN, "--store", str(store), *(["--json"] if as_json else []), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
