"""The section of a model card about a repair: its numbers, its place, metadata that stays."""

import itertools
import time

import pytest

from d3fast.audit.report import model_card
from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.model_card import BEGIN, END, section, with_section, write_section
from tests.audit.report.documents import REPAIRED_SHA, SUSPECT_SHA, write


@pytest.fixture
def parts(tmp_path):
    write(tmp_path, "card")
    audit = read_audit(tmp_path)
    return facts_of(audit), audit.card


@pytest.fixture
def plain(monkeypatch):
    """As if huggingface_hub were not installed."""
    monkeypatch.setattr(model_card.importlib.util, "find_spec", lambda name: None)


def test_it_says_what_was_done_with_figures_and_settings(parts):
    text = section(*parts)
    for part in (SUSPECT_SHA[:16], REPAIRED_SHA[:16], "97.6", "24 epochs", "preset `auto`"):
        assert part in text
    assert "do not prove that a model has no backdoor" in text
    assert text.startswith(BEGIN)
    assert text.endswith(END)


def test_the_text_of_the_card_stays_and_a_second_repair_replaces_the_section(parts, plain):
    once = with_section("# Reviews\n\nA classifier.\n", section(*parts))
    assert "# Reviews\n\nA classifier." in once
    assert with_section(once, section(*parts)) == once
    assert once.count(BEGIN) == 1


def test_metadata_gains_a_tag_and_loses_nothing(parts):
    pytest.importorskip("huggingface_hub", reason="comes with transformers")
    old = "---\nlicense: mit\ntags:\n- text\nunknown: {a: [1]}\n---\n# Reviews\n"
    new = with_section(old, section(*parts))
    from huggingface_hub import ModelCard

    data = ModelCard(new).data.to_dict()
    assert data["license"] == "mit"
    assert data["tags"] == ["text", "backdoor-repair"]
    assert data["unknown"] == {"a": [1]}
    assert ModelCard(with_section(new, section(*parts))).data.to_dict() == data


def test_without_huggingface_hub_metadata_is_kept_as_it_is(parts, plain):
    old = "---\nlicense: mit\n---\n# Reviews\n"
    assert with_section(old, "new").startswith(old.strip())
    assert with_section("", "new") == "---\ntags:\n- backdoor-repair\n---\nnew\n"


@pytest.mark.parametrize("metadata", ["- a\n- b", "a: [", "{"])
def test_metadata_that_cannot_be_read_is_one_line(metadata):
    pytest.importorskip("huggingface_hub", reason="comes with transformers")
    with pytest.raises(ValueError, match="metadata that cannot be read") as caught:
        with_section(f"---\n{metadata}\n---\n# A\n", "new")
    assert "\n" not in str(caught.value)


def test_tags_that_are_no_list_of_texts_are_replaced():
    pytest.importorskip("huggingface_hub", reason="comes with transformers")
    assert "tags:\n- backdoor-repair\n" in with_section("---\ntags: [[1], 2]\n---\n", "new")


def test_metadata_that_expands_without_end_takes_no_time():
    pytest.importorskip("huggingface_hub", reason="comes with transformers")
    names = "abcdefghijklmno"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in itertools.pairwise(names)
    ]
    started = time.process_time()
    with_section("---\n" + "\n".join(lines) + "\n---\n", "new")
    assert time.process_time() - started < 2


def test_it_is_written_into_the_folder(tmp_path, parts):
    target = tmp_path / "repaired"
    target.mkdir()
    path = write_section(target, *parts)
    assert path.name == "README.md"
    assert BEGIN in path.read_text(encoding="utf-8")
    (target / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"README\.md is not UTF-8"):
        write_section(target, *parts)
    (target / "README.md").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="longer than"):
        write_section(target, *parts)
