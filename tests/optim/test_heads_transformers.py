# SPDX-License-Identifier: Apache-2.0
"""The head and the MLP layers of models of transformers, built tiny from their configurations."""

import re
import warnings

import pytest
import torch

from d3fast import D3FusedSGD, find_head, param_groups

transformers = pytest.importorskip("transformers", exc_type=ImportError)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "num_labels": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "vocab_size": 50,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "num_labels": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PICTURE = {"image_size": 8, "patch_size": 4}


def make(name, config=None, **options):
    """A model by its class's name, randomly initialised."""
    cls = getattr(transformers, name)
    sizes = SIZES if config is None else config
    return cls(cls.config_class(**{**sizes, **options}))


CLASSIFIERS = {
    "BertForSequenceClassification": ({}, "classifier"),
    "RobertaForSequenceClassification": ({}, "classifier.out_proj"),
    "DistilBertForSequenceClassification": (
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "classifier",
    ),
    "DebertaV2ForSequenceClassification": ({}, "classifier"),
    "ElectraForSequenceClassification": ({"embedding_size": 16}, "classifier.out_proj"),
    "AlbertForSequenceClassification": ({"embedding_size": 16}, "classifier"),
    "XLNetForSequenceClassification": (
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
        "logits_proj",
    ),
    "BertForTokenClassification": ({}, "classifier"),
    "ViTForImageClassification": (PICTURE, "classifier"),
    "LlamaForSequenceClassification": ({}, "score"),
    "Qwen2ForSequenceClassification": ({"num_key_value_heads": 2}, "score"),
    "GPT2ForSequenceClassification": (GPT2, "score"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_head_of_a_classifier(name):
    options, want = CLASSIFIERS[name]
    model = make(name, **options)
    at, head = find_head(model)
    assert (at, head.out_features) == (want, 3)
    assert param_groups(model)[0]["param_names"] == [f"{want}.weight"]


LANGUAGE_MODELS = {
    "LlamaForCausalLM": ({}, "lm_head", "lm_head.weight"),
    "Qwen2ForCausalLM": (
        {"tie_word_embeddings": True, "num_key_value_heads": 2},
        "lm_head",
        "model.embed_tokens.weight",
    ),
    "GPT2LMHeadModel": (GPT2, "lm_head", "transformer.wte.weight"),
    "BertForMaskedLM": ({}, "cls.predictions.decoder", "bert.embeddings.word_embeddings.weight"),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_the_head_of_a_language_model_is_its_output_embedding(name):
    options, want, weight = LANGUAGE_MODELS[name]
    model = make(name, **options)
    at, head = find_head(model)
    assert at == want
    assert head is model.get_output_embeddings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (tracked,) = param_groups(model)[0]["param_names"]
    assert tracked == weight
    said = [str(w.message).partition(":")[0] for w in caught]
    tied = weight != f"{want}.weight"
    assert said == [f"{want}.weight is tied to {weight}"] * tied


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Qwen2ForCausalLM"])
def test_the_warning_of_a_tied_head_names_the_mlp_layers(name):
    model = make(name, **LANGUAGE_MODELS[name][0])
    with pytest.warns(UserWarning, match="moves the input embeddings as well") as caught:
        param_groups(model)
    pattern = re.search(r"track=r'(.*)' tracks the MLP layers", str(caught[0].message))[1]
    names = param_groups(model, pattern)[0]["param_names"]
    assert names == [n for n, p in model.named_parameters() if ".mlp." in n and p.dim() == 2]


def test_a_tied_head_is_one_parameter_to_the_optimizer():
    model = make("GPT2LMHeadModel", GPT2)
    with pytest.warns(UserWarning, match="is tied to"):
        groups = param_groups(model)
    opt = D3FusedSGD(groups, lr=0.1)
    tokens = torch.arange(10).reshape(1, 10)
    before = model.lm_head.weight.detach().clone()
    model(tokens).logits.square().mean().backward()
    opt.step()
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not torch.equal(model.lm_head.weight, before)
    assert list(opt.distances()) == ["transformer.wte.weight"]


# As docs/integrations.md names them.
MLP_LAYERS = {
    "GPT2LMHeadModel": (GPT2, r"\.mlp\.c_(fc|proj)\.weight$", 2),
    "LlamaForCausalLM": ({}, r"\.mlp\.(gate|up|down)_proj\.weight$", 3),
    "Qwen2ForCausalLM": ({"num_key_value_heads": 2}, r"\.mlp\.(gate|up|down)_proj\.weight$", 3),
    "BertForSequenceClassification": ({}, r"\.\d+\.(intermediate|output)\.dense\.weight$", 2),
    "RobertaForSequenceClassification": ({}, r"\.\d+\.(intermediate|output)\.dense\.weight$", 2),
    "DistilBertForSequenceClassification": (
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        r"\.ffn\.lin\d\.weight$",
        2,
    ),
    "ViTForImageClassification": (PICTURE, r"\.mlp\.fc\d\.weight$", 2),
}


@pytest.mark.parametrize("name", MLP_LAYERS)
def test_a_regex_over_the_mlp_layers(name):
    options, pattern, each = MLP_LAYERS[name]
    model = make(name, **options)
    tracked, plain = param_groups(model, pattern)
    assert len(tracked["params"]) == 2 * each  # two blocks
    assert all(64 in p.shape or 128 in p.shape for p in tracked["params"])
    assert not [n for n in plain["param_names"] if re.search(pattern, n)]


@pytest.mark.parametrize("track", ["linear", "conv+linear"])
def test_gpt2s_own_linear_layers_are_linear(track):
    model = make("GPT2ForSequenceClassification", GPT2)
    names = param_groups(model, track)[0]["param_names"]
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    blocks = [f"transformer.h.{i}.{layer}.weight" for i in (0, 1) for layer in layers]
    assert names == [*blocks, "score.weight"]


def test_experts_kept_in_one_parameter_are_found_by_a_regex_only():
    model = make("MixtralForCausalLM", num_local_experts=2, num_key_value_heads=2)
    pattern = r"\.experts\.(gate_up|down)_proj$"
    names = param_groups(model, pattern)[0]["param_names"]
    assert [n.rpartition(".")[2] for n in names] == ["gate_up_proj", "down_proj"] * 2
    assert not set(names) & set(param_groups(model, "linear")[0]["param_names"])
