"""SDUMC's weights under the names of the published implementation, so that its checkpoints load here.

    state = torch.load("mosei.pt", weights_only=True)
    if is_published_sdumc(state):
        model = from_published(state)                        # SDUMC in `reference` mode, for language features

Names may begin with `module.`. The sizes come from the shapes of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lnln.config import ModelConfig, SdumcConfig, to_dict
from lnln.data.schema import FeatureSpec
from lnln.errors import RefusedError
from lnln.models.published import WRAPPER
from lnln.models.sdumc import SDUMC

# The published network takes inputs of any length.
ANY_LENGTH = 2**20

_MODALITIES = {"audio": "audio", "text": "text", "video": "vision"}
_NUMBERS = dict(enumerate(_MODALITIES.values()))
_QUERIES = {
    "fused": "all",
    "at": "audio_text",
    "tv": "text_vision",
    "av": "audio_vision",
    **_MODALITIES,
}
# Published place to ours.
_PLACES = {
    **{f"frame_dim_reshape_{number}.": f"project.{ours}." for number, ours in _NUMBERS.items()},
    **{f"fra2utt_{number}.input_proj.": f"pool.{ours}.key." for number, ours in _NUMBERS.items()},
    **{f"fra2utt_{number}.attention_context_vector": f"pool.{ours}.context" for number, ours in _NUMBERS.items()},
    **{f"{theirs}_mlp.": f"hidden.{ours}." for theirs, ours in _MODALITIES.items()},
    "attention_mlp.": "weigh_modalities.0.",
    "fc_att.": "weigh_modalities.1.",
    **{f"cross_{theirs}_query_mlp.": f"queries.{ours}." for theirs, ours in _QUERIES.items()},
    **{f"cross_att_fra2utt_{number}.input_proj.": f"ask.{ours}.key." for number, ours in _NUMBERS.items()},
    **{f"cross_att_fra2utt_{number}.query_proj.": f"ask.{ours}.query." for number, ours in _NUMBERS.items()},
    **{f"cross_{theirs}_mlp.": f"found.{ours}." for theirs, ours in _MODALITIES.items()},
    "cross_attention_mlp.": "weigh_queries.0.",
    "cross_fc_att.": "weigh_queries.1.",
    "fc_out_v.": "sentiment_head.",
    "orgin_linear_change.": "rank_head.",  # spelt so in the published code
}
_IMAGINATION = {
    "missing_text_imagination_mlp.": "imagine_hidden.",
    "missing_cross_text_query_imagination_mlp.": "imagine_found.",
}
_IMAGINATION_PARTS = {"encoder_0.0.": "encoder.", "decoder_0.0.": "decoder."}
# Made by the published code and never read.
_UNREAD = re.compile(r"(fc_out_e|fc_out_ev|prelu|normali|layer_normali)\.\w+")
# Made by the file that has the imagination autoencoder, and not by the one that has it switched off.
_OF_IMAGINATION = "normali.weight"


def is_published_sdumc(state: Mapping[str, Any]) -> bool:
    """Whether these are names of a published SDUMC, which LNLN has not."""
    names = {name.removeprefix(WRAPPER) for name in state}
    return "frame_dim_reshape_0.weight" in names and "fra2utt_0.input_proj.weight" in names


def our_name(published: str) -> str | None:
    """Our name of a published weight; None for those that nothing reads. RefusedError for any other name."""
    published = published.removeprefix(WRAPPER)
    if _UNREAD.fullmatch(published):
        return None
    for place, ours in {**_PLACES, **_IMAGINATION}.items():
        if published.startswith(place):
            rest = published.removeprefix(place)
            for theirs, part in _IMAGINATION_PARTS.items() if place in _IMAGINATION else ():
                rest = rest.replace(theirs, part)
            return ours + rest
    raise RefusedError(f"{published!r} is no weight of a published SDUMC checkpoint")


def from_published(
    state: Mapping[str, Tensor],
    args: Mapping[str, Any] | None = None,
    *,
    label_range: tuple[float, float] = (-3.0, 3.0),
) -> SDUMC:
    """The model that a published state dict belongs to, in `reference` mode and eval mode.

    args: `imagination`, whether the autoencoder takes part. Its weights are in every checkpoint; without `args` it does
    where the checkpoint is of the published file that calls it, which is the one with a batch normalisation `normali`.
    Raises RefusedError when weights are missing or do not fit together.
    """
    state = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    imagination = bool((args or {}).get("imagination", _OF_IMAGINATION in state))
    named = {our_name(name): tensor for name, tensor in state.items()}
    weights = {name: tensor for name, tensor in named.items() if name is not None}
    if not imagination:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("imagine_")}
    try:
        dims = {modality: state[f"frame_dim_reshape_{number}.weight"].shape[1] for number, modality in _NUMBERS.items()}
        spec = FeatureSpec(
            audio_dim=dims["audio"],
            vision_dim=dims["vision"],
            text_dim=dims["text"],
            simulated_text_dim=dims["text"],
            text_length=ANY_LENGTH,
            audio_length=ANY_LENGTH,
            vision_length=ANY_LENGTH,
            simulated_text_length=ANY_LENGTH,
            vocabulary_size=0,
            unknown_id=0,
            label_range=label_range,
        )
        config = ModelConfig(
            name="sdumc",
            mode="reference",
            text_encoder="published",
            hidden_dim=state["frame_dim_reshape_0.weight"].shape[0],
            num_heads=1,  # it has none, and any width is right for one
            sdumc=SdumcConfig(
                query_dim=state["fc_out_v.weight"].shape[1],
                rank_dim=state["orgin_linear_change.0.weight"].shape[0],
                imagination=imagination,
            ),
        )
        model = SDUMC(model=to_dict(config), spec=to_dict(spec), encoder=None)
        absent, unknown = model.load_state_dict(weights, strict=False)
    except KeyError as error:
        raise RefusedError(f"a published SDUMC checkpoint has a weight called {error}, this one has not") from error
    except (RuntimeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise RefusedError(f"these weights are no published SDUMC checkpoint: {reason}") from error
    absent = [name for name in absent if name not in dict(model.named_buffers())]  # statistics, unused here
    if absent or unknown:
        raise RefusedError(f"these weights are no published SDUMC checkpoint: missing {absent}, unknown {unknown}")
    return model.eval()
