"""Models of `transformers` by name or folder: a folder of this machine, else the cached copy, else the hub's.

loaded = load_model("microsoft/wavlm-large@refs/pr/6", "audio.model")      # NAME, NAME@REVISION or a folder
loaded.model                                     # evaluation mode, float32, no gradients
prepare = load_preprocessor(loaded, "audio.model")                         # what its authors do to its input
loaded.sha256                                    # of each file that was read, for the manifest
tokenizer = load_tokenizer("roberta-base", "text.tokenizer")

Weights are safetensors and no code of a model is run, so that nothing is unpickled and nothing executed. Where the hub
cannot be reached, that shows within seconds, and the refusal says which files to bring and how.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from lnln.errors import RefusedError

# Weights in one file or several; not those of half precision and others that some models have beside.
_WEIGHTS = "model.safetensors|model-*.safetensors"
_PREPROCESSOR = "preprocessor_config.json|processor_config.json"
MODEL_FILES = (
    "config.json",
    *_PREPROCESSOR.split("|"),
    *_WEIGHTS.split("|"),
    "model.safetensors.index.json",
)
TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
# Seconds for a first answer; a download is only begun where there was one.
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Loaded:
    """A model, what it is called in the config, and the folder it was read from.

    model: in evaluation mode, float32, without gradients.
    """

    model: Any
    name: str
    folder: Path

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """By file name, of the weights and of what says how to use them; read once."""
        paths = [path for path in sorted(self.folder.iterdir()) if any(fnmatch(path.name, p) for p in MODEL_FILES)]
        return {path.name: _sha256(path) for path in paths}


def load_model(name: str, key: str, *, auto: str = "AutoModel", unread: Sequence[str] = (), **options: Any) -> Loaded:
    """The model called `name` with its trained weights.

    key: of the config, for refusals (`vision.model`). auto: the class of `transformers` that makes it. unread: how
    names of weights begin that may be absent because no feature depends on them (`masked_spec_embed`, `pooler.`).
    options: for `from_pretrained` (`add_pooling_layer=False`).
    RefusedError where files are missing, are no safetensors, lack weights, or are of no model that `auto` knows.
    """
    import transformers

    from lnln.models.text_encoder import quiet

    folder = find(name, key, MODEL_FILES, needed=("config.json", _PREPROCESSOR, _WEIGHTS))
    try:
        with quiet():
            model, report = getattr(transformers, auto).from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # whatever the parts of `transformers` raise: OSError, ValueError, SafetensorError, ...
        raise _unloadable(key, name, folder, error) from error
    absent = sorted(str(item) for item in [*report["missing_keys"], *report["mismatched_keys"]])
    absent = [weight for weight in absent if not weight.startswith(tuple(unread))]
    if absent:
        raise RefusedError(f"{key}={name} lacks {len(absent)} of its weights, the first is {absent[0]}")
    return Loaded(model.eval().float().requires_grad_(False), name, folder)


def load_preprocessor(loaded: Loaded, key: str, *, auto: str = "AutoFeatureExtractor", **options: Any) -> Any:
    """What the model's authors do to its input, by the preprocessor_config.json beside the weights.

    auto: AutoImageProcessor for images. RefusedError where that file is damaged.
    """
    import transformers

    from lnln.models.text_encoder import quiet

    try:
        with quiet():
            return getattr(transformers, auto).from_pretrained(
                loaded.folder, trust_remote_code=False, local_files_only=True, **options
            )
    except Exception as error:  # as above
        raise _unloadable(key, loaded.name, loaded.folder / _PREPROCESSOR.split("|")[0], error) from error


def load_tokenizer(name: str, key: str) -> Any:
    """A fast tokenizer of `transformers`. RefusedError where its files are missing or it has no fast form."""
    from transformers import AutoTokenizer

    from lnln.models.text_encoder import quiet

    folder = find(name, key, TOKENIZER_FILES, needed=("tokenizer.json|vocab.txt|vocab.json",))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as above
        raise _unloadable(key, name, folder, error) from error
    if not getattr(tokenizer, "is_fast", False):
        raise RefusedError(f"{key} must have a fast tokenizer (tokenizer.json), {name!r} has none")
    return tokenizer


def find(name: str, key: str, files: Sequence[str], needed: Sequence[str]) -> Path:
    """The folder with the files of `name`: that folder itself, the cached copy, or one downloaded now.

    files: patterns of names to download. needed: patterns that must be there, `a|b` for either.
    RefusedError where a needed one is nowhere, with the command that brings it.
    """
    if _is_folder(name):
        folder = Path(name)
        if lacking := _lacking(needed, [path.name for path in folder.iterdir()]):
            raise RefusedError(f"{key}={name} is a folder without {lacking}{_conversion(name, lacking)}")
        return folder
    repository, _, revision = name.partition("@")
    return _cached(repository, revision, files, needed) or _download(repository, revision, key, files, needed)


def short_name(name: str) -> str:
    """What a model is called without its place: the last part of a folder, a Hugging Face name without revision."""
    return Path(name).resolve().name if _is_folder(name) else name.partition("@")[0]


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # too long a name, or behind a folder that is closed to us
        return False


def _cached(repository: str, revision: str, files: Sequence[str], needed: Sequence[str]) -> Path | None:
    """The copy in Hugging Face's cache, None where there is none that has all that is needed."""
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(files), local_files_only=True
        )
    except Exception:  # absent, or a name that can be no model's, which the hub is asked about next
        return None
    folder = Path(path)
    return None if _lacking(needed, [path.name for path in folder.iterdir()]) else folder


def _download(repository: str, revision: str, key: str, files: Sequence[str], needed: Sequence[str]) -> Path:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HFValidationError

    named = f"{repository}@{revision}" if revision else repository
    command = " ".join(["hf download", repository, *(["--revision", revision] if revision else [])])
    try:
        # Asked first because a download retries for half a minute before it admits that there is no network.
        info = HfApi().model_info(repository, revision=revision or None, timeout=_ANSWER_SECONDS)
        names = [file.rfilename for file in info.siblings or ()]
        if lacking := _lacking(needed, names):
            raise RefusedError(f"{key}={named} has no {lacking} on the hub{_conversion(repository, lacking)}")
        # One by one: snapshot_download waits for its first answer without any limit.
        paths = [
            hf_hub_download(repository, name, revision=revision or None, etag_timeout=_ANSWER_SECONDS)
            for name in names
            if any(fnmatch(name, pattern) for pattern in files)
        ]
        return Path(paths[0]).parent
    except RefusedError:
        raise
    except HFValidationError as error:
        raise RefusedError(
            f"{key} must be a folder or a Hugging Face name like `google/vit-base-patch16-224`, got {named!r}"
        ) from error
    except Exception as error:  # whatever the hub's client raises: network errors, names it does not allow, ...
        raise RefusedError(
            f"{key}={named} is neither a folder nor cached, and the hub did not give it ({_first_line(error)}); run "
            f"`{command}` where there is a network, or set {key} to a folder with {_listed(needed)}"
        ) from error


def _lacking(needed: Sequence[str], names: Sequence[str]) -> str:
    """The first needed file that is not among `names` (in no subfolder), "" where all are."""
    for patterns in needed:
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns.split("|")):
            return patterns.replace("|", " or ")
    return ""


def _listed(needed: Sequence[str]) -> str:
    return " and ".join(patterns.replace("|", " or ") for patterns in needed)


def _conversion(name: str, lacking: str) -> str:
    """What to do where weights are not safetensors: many models have them so in a branch made by the hub itself."""
    if ".safetensors" not in lacking:
        return ""
    return (
        "; weights in other files would have to be unpickled: look for a safetensors revision of it, and give it as "
        f"NAME@refs/pr/N, or save {name!r} anew with save_pretrained() of `transformers` and give that folder"
    )


def _unloadable(key: str, name: str, path: Path, error: Exception) -> RefusedError:
    return RefusedError(f"{key}={name} cannot be loaded from {path}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
