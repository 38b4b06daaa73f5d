"""Tiny hub folders of text models, with the tokenizer of ``tests.text.tiny``."""

import json
import warnings

import pytest
import torch

from tests.text.tiny import CLASSES, LENGTH, WORDS, tokenizer

transformers = pytest.importorskip("transformers", reason="needs the extra d3fast[hub]")

_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
_LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
# Options of a tiny model of each family.
FAMILIES = {
    "bert": _BERT,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "roberta": _BERT | {"pad_token_id": 0},
    "electra": _BERT | {"embedding_size": 8},
    "albert": _BERT | {"embedding_size": 8},
    "deberta-v2": _BERT,
    "mpnet": _BERT | {"pad_token_id": 0},
    "gpt2": _GPT,
    "llama": _LLAMA,
}
QUICK = ("bert", "distilbert", "roberta", "gpt2", "llama")
CAUSAL = ("gpt2", "llama")


def _auto(family, auto, **options):
    torch.manual_seed(0)
    kind = transformers.CONFIG_MAPPING[family]
    given = {"vocab_size": len(WORDS), "pad_token_id": None, "bos_token_id": None}
    given |= {"eos_token_id": None, **FAMILIES[family], **options}
    config = kind(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, auto).from_config(config).eval()


def write_classifier(folder, family="bert", words=None, **options):
    """Write a hub folder with a classifier of texts, and return its path."""
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": None}
    model = _auto(family, "AutoModelForSequenceClassification", **{**labels, **options})
    return _write(folder, model, words)


def write_language_model(folder, family="gpt2", words=None, **options):
    """Write a hub folder with a causal language model, and return its path."""
    return _write(folder, _auto(family, "AutoModelForCausalLM", **options), words)


def _write(folder, model, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    (words or tokenizer()).save_pretrained(folder)
    return folder


def without_padding():
    """The tokenizer without a padding token, as many language models have it."""
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer, eos_token="[SEP]", model_max_length=LENGTH
    )
    return words


def edit(path, **changes):
    """Change keys of a JSON file; ``None`` takes them out."""
    held = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
