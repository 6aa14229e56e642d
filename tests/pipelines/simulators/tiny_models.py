"""Speech recognisers, language models and projectors with random weights, kept in folders as the hub keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.pipelines.extractors.audio.test_speech_encoder import save as save_speech_encoder

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]


def save_tokenizer(folder: Path, size: int = 40) -> Any:
    """Words w0, w1, ... and three special tokens, split at blanks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, **{f"w{i}": i for i in range(4, size)}}
    fast = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, **special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_writer(folder: Path, *, seed: int = 0, layers: int = 5, hidden: int = 16) -> Any:
    """A causal language model whose words differ enough that beams change places."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_projector(
    folder: Path, *, frame_dim: int = 32, stacked: int = 5, word_dim: int = 16, prefix: str = ""
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(0)
    shapes = {
        "linear1.weight": (24, stacked * frame_dim),
        "linear1.bias": (24,),
        "linear2.weight": (word_dim, 24),
        "linear2.bias": (word_dim,),
    }
    tensors = {prefix + name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(tensors, folder / "projector.safetensors")


def save_listener(folder: Path, **writer: Any) -> dict[str, Any]:
    """Speech encoder, projector and language model below `folder`: the knobs that name them."""
    save_speech_encoder(folder / "wavlm")
    save_projector(folder / "projector")
    save_writer(folder / "writer", **writer)
    return {
        "speech_encoder": str(folder / "wavlm"),
        "projector": str(folder / "projector"),
        "language_model": str(folder / "writer"),
        "prompt": "w5 w6 w7",
        "max_new_tokens": 12,
        "num_layers": 2,
    }


def save_ctc(folder: Path) -> Any:
    """A recogniser that names the sound of each frame."""
    from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

    from tests.pipelines.extractors.audio.test_speech_encoder import SMALL

    torch.manual_seed(1)
    config = AutoConfig.for_model("wav2vec2", **SMALL, vocab_size=len(LETTERS), pad_token_id=0)
    model = AutoModelForCTC.from_config(config).eval()
    with torch.no_grad():  # whose letters differ from frame to frame
        model.lm_head.weight.mul_(100)
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, sampling_rate=16_000).save_pretrained(folder)
    return model


def save_whisper(folder: Path) -> Any:
    """A recogniser that writes: windows of 2 seconds."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(2)
    config = WhisperConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=64,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        init_std=0.5,
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config.update(forced_decoder_ids=None, suppress_tokens=None, begin_suppress_tokens=None)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    save_tokenizer(folder)
    return model
