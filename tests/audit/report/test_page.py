"""The page of an audit: what it holds for every subset of documents, and that texts stay texts."""

import itertools
import re
import time

import pytest
from markupsafe import Markup

from d3fast.audit.report import page as audit_page
from d3fast.audit.report.page import write_audit_page
from tests.audit.report.documents import (
    OTHER_SHA,
    ROWS,
    calibrate,
    card_rows,
    edit,
    inversion,
    model,
    pilot_rows,
    repair,
    spectrum_rows,
    token_rows,
    write,
)

SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(ROWS, n)]


def plain(text):
    """The text with all spaces alike."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture
def drawn_page(tmp_path):
    """The page of a folder with these documents, as text."""

    def made(*names):
        for name in names:
            write(tmp_path, name)
        write_audit_page(tmp_path, tmp_path / "report.html")
        return plain((tmp_path / "report.html").read_text(encoding="utf-8"))

    return made


@pytest.fixture
def page(drawn_page, monkeypatch):
    """The same with empty figures, which are most of the time."""
    monkeypatch.setattr(audit_page, "inline_svg", lambda figure, alt: Markup("<svg role></svg>"))
    return drawn_page


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_every_subset_gives_a_page_with_its_own_parts_alone(page, names):
    text = page(*names)
    parts = {
        "<h2>Measurements</h2>": "inspect" in names and "card" not in names,
        "<h2>Before and after</h2>": "card" in names,
        "<h2>Inverted triggers</h2>": {"inspect", "card"} & set(names),
        "<h2>Repair</h2>": "card" in names,
        "<h2>Distance per layer</h2>": "card" in names,
        "<h2>Curvature</h2>": "spectrum" in names,
        "<h2>Comparison of settings</h2>": "pilot" in names,
        "there was no repair": "card" not in names,
    }
    for part, wanted in parts.items():
        assert (part in text) == bool(wanted), part
    for always in ("Verdict", "What was not checked", "Sources", "Terms"):
        assert f"<h2>{always}</h2>" in text
    figures = 4 * ("card" in names) + ("card" in names) + 2 * ("spectrum" in names)
    assert text.count("<svg role") == figures + 2 * ("pilot" in names)
    for name in names:
        assert f"<dt>{name}.json</dt>" in text


@pytest.mark.parametrize("names", [("inspect",), tuple(ROWS)], ids="+".join)
def test_nothing_is_loaded_from_anywhere(drawn_page, names):
    text = drawn_page(*names)
    assert "default-src 'none'" in text
    sources = re.findall(r"\b(?:src|href|srcset|action|data|poster)=\"([^\"]*)", text)
    assert sources
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in sources)
    assert not re.search(r"url\((?!#)|@import|<script|<iframe|<object|<embed|<link|\son\w+=", text)


def test_the_parts_stand_in_the_order_of_their_weight(page):
    headings = re.findall(r"<h2>(.*?)</h2>", page(*ROWS))
    assert headings == [
        "Verdict",
        "Before and after",
        "Inverted triggers",
        "Repair",
        "Distance per layer",
        "Curvature",
        "Comparison of settings",
        "What was not checked",
        "Sources",
        "Terms",
    ]


def test_numbers_have_their_unit_and_their_interval(page):
    text = page("card")
    assert "97.6 %<small>95.7 to 98.6 %, 450 samples</small>" in text
    assert "0.4 points<small>−0.9 to 1.9 points, limit 1.0 points</small>" in text
    assert "4.2 px<small>class “3”, index 4.4</small>" in text
    assert "38.8 %<small>of the norm of all weights</small>" in text


def test_triggers_stand_side_by_side_before_and_after(page):
    text = page("card")
    patch = text[text.index("<h3>Class “1”</h3>") :]
    patch = patch[: patch.index("</figure>")]
    assert patch.count("<img") == 2
    assert patch.index("before: 11.7 px, index 0.1") < patch.index("after: 11.7 px, index 0.1")
    lone = text[text.index("<h3>Class “3”</h3>") :]
    assert "no picture: only the smallest" in lone[: lone.index("</figure>")]


def test_classes_pictured_once_that_stand_out_in_neither_model_are_left_out(page):
    assert "<h3>Class “9”</h3>" not in page("card")
    assert "<h3>Class “7”</h3>" in page("inspect", "card")


def test_what_was_not_checked_says_so_without_numbers_made_up(page):
    text = page("card")
    part = text[text.index("<h2>What was not") : text.index("<h2>Sources")]
    for words in (
        "trigger is not known",
        "(ASR)",
        "all-to-all",
        "450 clean samples",
        "documentation under “Inspect”",
        "d3fast pilot",
        "d3fast spectrum",
    ):
        assert words in part
    assert re.findall(r"\d+", re.sub("<.*?>|d3fast", "", part)) == ["450"]


def test_a_trigger_that_the_pilot_alone_knew_is_told_apart(tmp_path, page):
    write(
        tmp_path,
        "pilot",
        [{**row, "asr": 0.5} if row["kind"] == "trial" else row for row in pilot_rows()],
    )
    text = page("card")
    assert "in the comparison of settings only" in text
    assert "trigger is not known" not in text


def test_sources_have_commands_versions_and_hashes(page):
    text = page("inspect", "card")
    made = text[text.index("Sources") :]
    for words in (
        "<code>d3fast inspect</code>",
        "<code>d3fast detox</code>",
        "d3fast 0",
        "torch 2",
        "preact_resnet_narrow, 307,690 parameters, classification head fc",
        64 * "a",
        64 * "b",
    ):
        assert words in made


def test_the_same_documents_give_the_same_page(drawn_page):
    assert drawn_page("card") == drawn_page()


HOSTILE = "</title><script>alert(1)</script>\x1b[2J\n‮$\\frac{$_{"


def hostile(value):
    """Every text of a document replaced by one that no page should take as it is."""
    if isinstance(value, dict):
        keep = ("kind", "role", "sha256", "input_sha256", "output_sha256", "output", "picture")
        return {key: v if key in keep else hostile(v) for key, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_a_text_classifier_has_tokens_and_no_word_of_patches(tmp_path, page):
    write(tmp_path, "inspect", token_rows())
    text = page()
    assert "<h3>Strongest tokens per class</h3>" in text
    assert "“cf”" in text
    for word in ("pixel", "patch", "images", "Anomaly index", "px"):
        assert word not in text.partition("</style>")[2], word


def test_markup_in_tokens_is_text(tmp_path, page):
    write(tmp_path, "inspect", token_rows("<script>alert(1)</script>\x1b[2J"))
    text = page()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("name", ["inspect", "card", "pilot"])
def test_texts_are_shown_as_texts(tmp_path, drawn_page, name):
    def spoil(document):
        rows = hostile(document["rows"])
        for at, row in enumerate(row for row in rows if row["kind"] == "sign"):
            row["name"] = f"{at} {HOSTILE}"
        document.update(command=HOSTILE, created=HOSTILE, rows=rows)
        for name in ("versions", "machine", "settings"):
            document[name] = hostile(document[name])

    edit(write(tmp_path, name), spoil)
    text = drawn_page()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not set("\x1b‮") & set(text)


def test_names_of_models_in_figures_are_no_mathematics(tmp_path, drawn_page):
    rows = [
        {**row, "model": f"_$\\frac$<b>{row['model']}"}
        for row in spectrum_rows()
        if row["kind"] in ("model", "spectrum")
    ]
    write(tmp_path, "spectrum", rows)
    text = drawn_page()
    assert "<b>" not in text
    assert "＄\\frac＄&lt;b&gt;suspect" in text


def test_letters_that_the_measuring_font_lacks_are_no_warning(tmp_path, drawn_page):
    layers = [{"name": "层.重量", "relative": 0.5}]
    rows = [{**row, "layers": layers} if row["kind"] == "distance" else row for row in card_rows()]
    write(tmp_path, "card", rows)
    assert "层.重量" in drawn_page()


def test_a_card_without_the_parts_that_it_may_lack_is_shown(tmp_path, page):
    rows = [row for row in card_rows() if row["kind"] in ("model", "repair")]
    rows[-1] = repair(distance=None, max_acc_drop=None)
    rows = [{**row, "head": None} if row["kind"] == "model" else row for row in rows]
    write(tmp_path, "card", rows)
    text = page()
    assert "<h2>Repair</h2>" in text
    assert "<h2>Distance per layer</h2>" not in text
    assert "<h2>Inverted triggers</h2>" not in text


def test_layers_that_started_at_zero_and_losses_of_zero_can_be_drawn(tmp_path, drawn_page):
    epoch = {
        "kind": "epoch",
        "epoch": 1,
        "loss": 0.0,
        "accuracy": 0.0,
        "lr": 0.1,
        "distance": None,
        "val_accuracy": None,
        "clean_weight": None,
    }
    layers = [{"name": "a", "relative": 0.0}, {"name": "b", "relative": None}]
    rows = [row for row in card_rows() if row["kind"] not in ("epoch", "distance")]
    rows += [epoch, {"kind": "distance", "layers": layers, "total": None}]
    write(tmp_path, "card", rows)
    assert drawn_page().count("<svg role") == 3


def test_warnings_stand_above_the_verdict(tmp_path, page):
    write(tmp_path, "pilot", sha256=OTHER_SHA)
    text = page("card")
    assert text.index("pilot.json is about another model") < text.index("<h2>Verdict</h2>")
    assert OTHER_SHA not in text


def test_a_document_that_cannot_be_read_writes_nothing(tmp_path, page):
    edit(write(tmp_path, "card"), lambda document: document["rows"].clear())
    with pytest.raises(ValueError, match=r"^card\.json: "):
        page()
    assert not (tmp_path / "report.html").exists()


def test_the_headline_and_the_warnings_are_returned(tmp_path):
    write(tmp_path, "card")
    headline, warning = write_audit_page(tmp_path, tmp_path / "report.html")
    assert headline.startswith("Possible backdoor toward class “3”")
    assert "repaired.safetensors is not in the folder" in warning


def test_as_many_outliers_as_are_read_make_a_page_in_seconds(tmp_path):
    rows = [row for row in model() if row["kind"] != "inversion"]
    changed = {**inversion("suspect", 0).to_row(), "outlier": True, "picture": None}
    rows += [{**changed, "target": target} for target in range(25_000)]
    write(tmp_path, "inspect", rows)
    start = time.process_time()
    write_audit_page(tmp_path, tmp_path / "report.html")
    assert time.process_time() - start < 5
    assert "24980 more classes" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_p_values_are_beside_the_scores_and_behind_the_verdict(page, tmp_path):
    page("inspect")
    edit(tmp_path / "inspect.json", calibrate)
    write_audit_page(tmp_path, tmp_path / "report.html")
    text = plain((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "p = 0.02" in text
    assert "1 clean model in 25 looks like this (p = 0.04)" in text
