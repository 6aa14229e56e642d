"""A question to a service, asked by a process of its own: `python -m lnln.doctor.ask_dask tcp://10.0.0.1:8786`.

Client libraries wait long for those who do not answer, some end their process, and some cannot be imported where
versions do not fit. A child takes all of that: it is given a few seconds, and what it says last is the answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

# To import the client library on a busy machine, and for its own time-outs, which are shorter.
ANSWER_SECONDS = 30.0


class NoAnswerError(Exception):
    """A question that got no answer. kind: a word for the reason, where the asker knew one."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason, kind)
        self.reason, self.kind = reason, kind


def ask(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `module`, run with `arguments`, answers. NoAnswerError where it cannot, or takes too long."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"nothing within {ANSWER_SECONDS:g} s", "silent") from None
    said = done.stdout.strip().splitlines()
    try:
        answer = json.loads(said[-1])
        if "reason" in answer:
            raise NoAnswerError(answer["reason"], answer["kind"])
        return dict(answer["answer"])
    except (ValueError, LookupError, TypeError):
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise NoAnswerError(" ".join(last.split())) from None


def answer(question: Callable[..., dict[str, Any]]) -> None:
    """In the child: print what `question` returns for the arguments of the command line, or why it cannot."""
    try:
        said: dict[str, Any] = {"answer": question(*sys.argv[1:])}
    except NoAnswerError as error:
        said = {"reason": error.reason, "kind": error.kind}
    except Exception as error:
        said = {"reason": " ".join(f"{type(error).__name__}: {error}".split()), "kind": ""}
    sys.stdout.write(f"\n{json.dumps(said)}\n")
    sys.stdout.flush()
    os._exit(0)  # threads and connections of client libraries would want to be ended in order
