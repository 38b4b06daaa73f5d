# SPDX-License-Identifier: Apache-2.0
"""Text classifiers in hub folders: the scores of ``from_pretrained``, and back into the folder."""

import copy

import pytest
import torch

from d3fast.hub import Request, TextInput, resolve
from tests.hub.text_makers import (
    CAUSAL,
    FAMILIES,
    QUICK,
    edit,
    transformers,
    without_padding,
    write_classifier,
    write_language_model,
)
from tests.text.tiny import CLASSES, LENGTH, WORDS, text_data, texts, tokenizer

AUTO = transformers.AutoModelForSequenceClassification


def scores(model, *args, **named):
    with torch.no_grad():
        found = model(*args, **named)
    return getattr(found, "logits", found)


def theirs(folder, ids, auto=AUTO):
    """Scores of the library's own model."""
    model = auto.from_pretrained(folder).eval()
    model.config.pad_token_id = 0
    return scores(model, input_ids=ids, attention_mask=(ids != 0).long())


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FAMILIES],
)
def test_the_scores_are_those_of_from_pretrained_and_so_is_what_is_written(family, tmp_path):
    folder, ids = write_classifier(tmp_path / "their-model", family), text_data(8).ids
    suspect = resolve(Request(str(folder)))
    assert (suspect.name, suspect.family) == ("their-model", family)
    assert suspect.classes == CLASSES
    torch.testing.assert_close(scores(suspect.model, ids), theirs(folder, ids), rtol=0, atol=1e-5)

    repaired = copy.deepcopy(suspect.model)
    with torch.no_grad():
        for param in repaired.parameters():
            param.mul_(1.5)
    written = suspect.save(repaired, tmp_path)
    expected = scores(repaired, ids)
    torch.testing.assert_close(theirs(written, ids), expected, rtol=0, atol=1e-5)
    again = transformers.AutoTokenizer.from_pretrained(written)
    assert again("music0 food1")["input_ids"] == tokenizer()("music0 food1")["input_ids"]


def test_names_without_a_change_are_those_of_the_file(tmp_path):
    folder = write_classifier(tmp_path / "a")
    suspect = resolve(Request(str(folder)))
    assert suspect.model.state_dict().keys() == AUTO.from_pretrained(folder).state_dict().keys()


def test_the_input_is_the_tokenizer_its_padding_and_the_shorter_length(tmp_path):
    suspect = resolve(Request(str(write_classifier(tmp_path / "a"))))
    assert isinstance(suspect.input, TextInput)
    assert (suspect.input.length, suspect.input.pad) == (LENGTH, 0)
    made, _ = texts(8, seed=1)
    ids = suspect.input.tokenizer(made, padding="max_length", max_length=LENGTH)["input_ids"]
    assert ids == text_data(8).ids.tolist()


@pytest.mark.parametrize(("family", "positions"), [("bert", 9), ("roberta", 8), ("gpt2", 9)])
def test_a_text_is_no_longer_than_the_model_has_positions(family, positions, tmp_path):
    length = {"n_positions": 9} if family == "gpt2" else {"max_position_embeddings": 9}
    suspect = resolve(Request(str(write_classifier(tmp_path / "a", family, **length))))
    assert suspect.input.length == positions
    scores(suspect.model, torch.full((2, positions), 7))


def test_a_long_length_is_capped_and_a_note_says_so(tmp_path):
    folder = write_classifier(tmp_path / "a", max_position_embeddings=1000)
    edit(folder / "tokenizer_config.json", model_max_length=10**30)
    suspect = resolve(Request(str(folder)))
    assert suspect.input.length == 256
    assert "Texts are cut to 256 tokens to save time; the model takes up to 1000." in suspect.notes


@pytest.mark.parametrize("family", CAUSAL)
def test_a_model_without_padding_takes_its_end_token_and_a_note_says_so(family, tmp_path):
    folder = write_classifier(tmp_path / "a", family, without_padding())
    suspect = resolve(Request(str(folder)))
    assert suspect.input.pad == WORDS.index("[SEP]")
    assert any("no padding token: '[SEP]' (eos) stands in" in note for note in suspect.notes)
    ids = torch.tensor([[9, 8, 7, 2, 2], [9, 8, 7, 6, 5]])  # a batch of two lengths
    alone = torch.cat([scores(suspect.model, ids[:1, :3]), scores(suspect.model, ids[1:])])
    torch.testing.assert_close(scores(suspect.model, ids), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_language_model_answers_by_words_under_its_own_names(family, tmp_path):
    folder, ids = write_language_model(tmp_path / "a", family), text_data(6).ids
    request = Request(str(folder), answers=("art0", "food0", "music0", "sport0"))
    suspect = resolve(request)
    assert suspect.classes == request.answers
    words = [WORDS.index(word) for word in request.answers]
    logits = theirs(folder, ids, transformers.AutoModelForCausalLM)
    last = (ids != 0).sum(dim=1) - 1
    expected = logits[torch.arange(len(ids)), last][:, words]
    torch.testing.assert_close(scores(suspect.model, ids), expected, rtol=0, atol=1e-5)
    written = suspect.save(suspect.model, tmp_path)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (written / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("answers", "error_text"),
    [
        ((), "is a language model: give --answers, one word per class"),
        (("art0",), "is a language model: give --answers"),
        (("art0", "two words"), "answer 'two words' is not one token"),
        (("art0", "unheard"), "answer 'unheard' is not one token"),
        (("art0", "art0"), "answers must be different tokens, got art0, art0"),
    ],
)
def test_answers_that_are_no_single_tokens_are_refused(answers, error_text, tmp_path):
    folder = write_language_model(tmp_path / "a")
    with pytest.raises(ValueError, match=error_text):
        resolve(Request(str(folder), answers=answers))


def test_what_is_no_classifier_of_texts_is_refused(tmp_path):
    folder = write_classifier(tmp_path / "a")
    with pytest.raises(ValueError, match="is a classifier: leave out --answers"):
        resolve(Request(str(folder), answers=("no", "yes")))
    with pytest.raises(ValueError, match="leave out --checkpoint"):
        resolve(Request(str(folder), checkpoint=folder / "model.safetensors"))
    one = write_classifier(tmp_path / "b", id2label={0: "score"})
    with pytest.raises(ValueError, match="has one output: it is no classifier"):
        resolve(Request(str(one)))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder = write_classifier(tmp_path / "a", vocab_size=len(WORDS) - 1)
    with pytest.raises(ValueError, match=f"has {len(WORDS)} tokens, the model knows 217"):
        resolve(Request(str(folder)))
