# SPDX-License-Identifier: Apache-2.0
"""The copy of a stranger's tokenizer holds plain data, or there is none."""

import json

import pytest

from d3fast.io.tokenizer_files import check_regex, copy_tokenizer

PLAIN = {
    "version": "1.0",
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r" ?\p{L}+| ?\p{N}+|\s+"}},
    "padding": {"strategy": {"Fixed": 2**40}},
    "truncation": {"max_length": 3},
    "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a tokenizer; ``write`` changes one of its files."""
    made = tmp_path / "theirs"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "bert", "auto_map": {"a": "b"}}))
    (made / "tokenizer.json").write_text(json.dumps(PLAIN))
    return made


@pytest.fixture
def copied(folder, tmp_path):
    def copy():
        target = tmp_path / "copy"
        target.mkdir()
        copy.notes = copy_tokenizer(folder, target)
        return target

    return copy


def read(path):
    return json.loads(path.read_text())


def test_padding_and_truncation_are_left_to_the_caller(copied):
    held = read(copied() / "tokenizer.json")
    assert held == {**PLAIN, "padding": None, "truncation": None}


def test_settings_that_name_code_files_or_programs_are_left_out(folder, copied):
    settings = {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": 12,
        "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
        "vocab_file": "/etc/passwd",
        "tokenizer_file": "../../secret",
        "mecab_kwargs": {"mecab_option": "-r /etc/passwd"},
        "name_or_path": "org/name",
        "chat_template": "{{ 1 }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text("raise SystemExit")
    target = copied()
    kept = read(target / "tokenizer_config.json")
    assert kept == {"tokenizer_class": "BertTokenizer", "model_max_length": 12}
    assert read(target / "config.json") == {"model_type": "bert"}
    assert not (target / "evil.py").exists()
    assert "names code of its own" in copied.notes[0]


def test_vocabularies_are_copied_and_other_files_are_not(folder, copied):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\na\n")
    (folder / "notes.txt").write_text("a")
    target = copied()
    assert (target / "vocab.txt").read_text() == "[PAD]\na\n"
    assert not (target / "notes.txt").exists()


def replace(content):
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


def sequence(*parts):
    return {"type": "Sequence", "normalizers": list(parts)}


BOMBS = {
    "doubling": ({"normalizer": sequence(*[replace("aa")] * 30)}, "grows without end"),
    "one long replacement": ({"normalizer": replace("a" * 10**6)}, "grows without end"),
    "long prefix": ({"normalizer": {"type": "Prepend", "prepend": "a" * 999}}, "grows without"),
    "many special tokens": (
        {"post_processor": {"type": "TemplateProcessing", "single": [{}] * 999}},
        "grows without end",
    ),
    "large table of characters": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "A" * 2**21}},
        "grows without end",
    ),
    "many rules": ({"normalizer": sequence(*[{"type": "Lowercase"}] * 500)}, "more than 200 rules"),
    "exponential regex": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"(\w+\s?)+$"}}},
        "repeats a repetition",
    ),
    "long regex": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a" * 5000}}},
        "more than 2000 characters",
    ),
    "many repetitions": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\w*" * 80}}},
        "80 repetitions",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_in_one_line_that_names_the_file(bomb, folder, copied):
    changes, says = BOMBS[bomb]
    (folder / "tokenizer.json").write_text(json.dumps({**PLAIN, **changes}))
    with pytest.raises(ValueError, match=says) as caught:
        copied()
    assert "tokenizer.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deep_and_long_files_are_refused(folder, copied):
    (folder / "tokenizer.json").write_bytes(b'{"a":' * 500 + b"1" + b"}" * 500)
    with pytest.raises(ValueError, match="nested too deeply"):
        copied()


def test_a_file_beyond_the_limit_is_refused(folder, copied):
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(2**26)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        copied()


def test_a_link_out_of_the_folder_is_refused(folder, copied, tmp_path):
    (tmp_path / "secret").write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="leads out of"):
        copied()


def test_a_tokenizer_of_code_or_pickles_is_refused(folder, copied):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"the vocabulary is a pickle \('vocab\.pkl'\)"):
        copied()
    settings = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="the tokenizer is code"):
        copy_tokenizer(folder, folder)


def test_a_folder_without_a_tokenizer_is_refused(folder, copied):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json and no vocabulary"):
        copied()


REGEXES = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@pytest.mark.parametrize("name", REGEXES)
def test_expressions_of_real_tokenizers_pass(name, tmp_path):
    check_regex(REGEXES[name], tmp_path)


@pytest.mark.parametrize(
    "pattern", [r"(a+)+", r"((a|b)*c)*", r"(x*){2,}", r"(?:\w+ ?)+", r"(a*)*?"]
)
def test_repeated_repetitions_are_refused(pattern, tmp_path):
    with pytest.raises(ValueError, match="repeats a repetition"):
        check_regex(pattern, tmp_path)


@pytest.mark.parametrize("pattern", [r"\(\w+\)+", r"[(+*)]+", r"(ab)+", r"(a|b)*c+"])
def test_plain_repetitions_pass(pattern, tmp_path):
    check_regex(pattern, tmp_path)
