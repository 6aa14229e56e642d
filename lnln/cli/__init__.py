"""The front door: `lnln VERB`, each verb one function of the library.

Results go to standard output, everything else to standard error. Exit 0 done, 1 a refusal in one line, 2 usage.
Each verb imports what it needs when it is called, so that `lnln --help` is instant. `--store`, `--json` and `--quiet`
may stand anywhere before a `--`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from lnln.cli import data, models, start, studies, training, upkeep
from lnln.cli.arguments import global_options_first
from lnln.cli.session import app
from lnln.errors import RefusedError

__all__ = ["app", "main"]

# In the order of `lnln --help`.
VERBS: dict[str, Callable[..., None]] = {
    "demo": start.demo,
    "import": data.import_,
    "extract": data.extract,
    "corrupt": data.corrupt,
    "simulate": data.simulate,
    "train": training.train,
    "tune": studies.tune,
    "choose": studies.choose,
    "ablate": training.ablate,
    "evaluate": training.evaluate,
    "report": training.report,
    "publish": models.publish,
    "import-model": models.import_model,
    "alias": models.alias,
    "models": models.models,
    "pull": models.pull,
    "predict": models.predict,
    "verify": upkeep.verify,
    "gc": upkeep.gc,
    "doctor": upkeep.doctor,
}
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)


def main() -> None:
    """Run one verb; a refusal is one line on standard error and exit code 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app(args=global_options_first(sys.argv[1:]))
    except (RefusedError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        sys.stderr.write(f"lnln: {' '.join(str(error).split())}\n")
        sys.exit(1)
