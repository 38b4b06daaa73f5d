"""The page of a case: what it holds for every subset of documents, and what it refuses."""

import itertools
import json
import re

import pytest
from markupsafe import Markup

from d3fast.audit.report import page as case_page
from d3fast.audit.report.folder import read_case
from d3fast.audit.report.page import write_case
from d3fast.io.files import sha256
from tests.audit.report.documents import (
    OTHER_SHA,
    REPAIRED_SHA,
    ROWS,
    card_rows,
    edit,
    model,
    pilot_rows,
    repair,
    settings,
    spectrum_rows,
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
        write_case(tmp_path, tmp_path / "report.html")
        return plain((tmp_path / "report.html").read_text(encoding="utf-8"))

    return made


@pytest.fixture
def page(drawn_page, monkeypatch):
    """The same with empty figures, which are most of the time."""
    monkeypatch.setattr(case_page, "inline_svg", lambda figure, alt: Markup("<svg role></svg>"))
    return drawn_page


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_every_subset_gives_a_page_with_its_own_parts_alone(page, names):
    text = page(*names)
    parts = {
        "<h2>What was measured</h2>": "inspect" in names and "card" not in names,
        "<h2>Before and after</h2>": "card" in names,
        "<h2>The triggers found</h2>": {"inspect", "card"} & set(names),
        "<h2>The repair</h2>": "card" in names,
        "<h2>Distance per layer</h2>": "card" in names,
        "<h2>Curvature</h2>": "spectrum" in names,
        "<h2>Settings compared beforehand</h2>": "pilot" in names,
        "No repair was made.": "card" not in names,
    }
    for part, wanted in parts.items():
        assert (part in text) == bool(wanted), part
    for always in ("Verdict", "What was not checked", "How this was made", "Terms"):
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
        "The triggers found",
        "The repair",
        "Distance per layer",
        "Curvature",
        "Settings compared beforehand",
        "What was not checked",
        "How this was made",
        "Terms",
    ]


def test_numbers_have_their_unit_and_their_interval(page):
    text = page("card")
    assert "97.6 %<small>95.7 to 98.6 %, 450 samples</small>" in text
    assert "0.4 points<small>−0.9 to 1.9 points, 1.0 points allowed</small>" in text
    assert "4.2 px<small>class “3”, index 4.4</small>" in text
    assert "38.8 %<small>of the norm of all weights</small>" in text


def test_triggers_stand_side_by_side_before_and_after(page):
    text = page("card")
    patch = text[text.index("<h3>Class “1”</h3>") :]
    patch = patch[: patch.index("</figure>")]
    assert patch.count("<img") == 2
    assert patch.index("before: 11.7 px, index 0.1") < patch.index("after: 11.7 px, index 0.1")
    lone = text[text.index("<h3>Class “3”</h3>") :]
    assert "no picture: not among the smallest" in lone[: lone.index("</figure>")]


def test_classes_pictured_once_that_stand_out_in_neither_model_are_left_out(page):
    assert "<h3>Class “9”</h3>" not in page("card")
    assert "<h3>Class “7”</h3>" in page("inspect", "card")


def test_what_was_not_checked_says_so_without_numbers_made_up(page):
    text = page("card")
    part = text[text.index("<h2>What was not") : text.index("<h2>How this was")]
    for words in (
        "trigger is not known",
        "no ASR",
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
    assert "measured in the comparison of settings alone" in text
    assert "trigger is not known" not in text


def test_how_it_was_made_has_commands_versions_and_hashes(page):
    text = page("inspect", "card")
    made = text[text.index("How this was made") :]
    for words in (
        "<code>d3fast inspect</code>",
        "<code>d3fast detox</code>",
        "d3fast 0",
        "torch 2",
        "preact_resnet_narrow, 307,690 weights, last layer fc",
        64 * "a",
        64 * "b",
    ):
        assert words in made


def test_the_same_documents_give_the_same_page(drawn_page):
    assert drawn_page("card") == drawn_page()


def test_many_classes_are_cut_to_those_that_matter(tmp_path):
    rows = [row for row in model() if row["kind"] != "inversion"]
    rows += [
        {
            "kind": "inversion",
            "role": "suspect",
            "target": i,
            "class": f"c{i}",
            "norm": 500.0 - i,
            "success": 1.0,
            "index": 0.1,
            "outlier": i == 7,
            "picture": None,
        }
        for i in range(200)
    ]
    write(tmp_path, "inspect", rows)
    write_case(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "180 more classes" in text
    assert ">c7</th>" in text
    assert ">c199</th>" in text
    assert ">c0</th>" not in text


def test_an_empty_folder_is_told_which_commands_make_what(tmp_path):
    with pytest.raises(ValueError, match="nothing to report on") as caught:
        read_case(tmp_path)
    for command in ("inspect", "pilot", "detox", "spectrum"):
        assert f"d3fast {command}" in str(caught.value)
    assert "\n" not in str(caught.value)


# Documents that do not belong together


def test_a_card_of_another_model_than_the_inspection_is_said_on_top_and_not_mixed(tmp_path, page):
    rows = [{**row, "sha256": OTHER_SHA} if row["kind"] == "model" else row for row in model()]
    write(tmp_path, "inspect", rows, sha256=OTHER_SHA)
    text = page("card")
    warning = "inspect.json is about another model (SHA-256 cccccccccccc…) than card.json"
    assert text.index(warning) < text.index("<h2>Verdict</h2>")
    assert "<dt>inspect.json</dt>" not in text
    assert OTHER_SHA not in text


@pytest.mark.parametrize("name", ["pilot", "spectrum"])
def test_what_was_measured_on_another_model_is_left_out(tmp_path, page, name):
    write(tmp_path, name, sha256=OTHER_SHA)
    text = page("card")
    assert f"{name}.json is about another model" in text
    assert f"<dt>{name}.json</dt>" not in text


def test_a_spectrum_of_other_repairs_than_the_cards_is_left_out(tmp_path, page):
    write(tmp_path, "spectrum", repaired={"repaired": OTHER_SHA})
    assert "spectrum.json is about other repaired files than card.json" in page("card")
    write(tmp_path, "spectrum", repaired={"a": OTHER_SHA, "b": REPAIRED_SHA})
    assert "<h2>Curvature</h2>" in page()


def test_without_a_card_the_inspection_decides(tmp_path, page):
    write(tmp_path, "pilot", sha256=OTHER_SHA)
    assert "pilot.json is about another model" in page("inspect")


def test_a_card_whose_hashes_do_not_match_each_other_is_refused(tmp_path):
    write(tmp_path, "card", card_rows(output_sha256=OTHER_SHA))
    with pytest.raises(ValueError, match=r"^card\.json: the hashes of its models"):
        read_case(tmp_path)


def test_the_repaired_file_is_held_against_the_card(tmp_path, page):
    file = tmp_path / "repaired.safetensors"
    assert "repaired.safetensors is not in the folder" in page("card")
    file.write_bytes(b"weights")
    assert "is another file than the one that card.json describes" in page()
    own = sha256(file)
    after = [{**row, "sha256": own} if row["kind"] == "model" else row for row in model("repaired")]
    write(tmp_path, "card", card_rows(after, output_sha256=own))
    assert "Beware" not in page()


# Documents from strangers


def change(kind, **changes):
    """Changes the first row of a kind."""

    def apply(document):
        next(row for row in document["rows"] if row["kind"] == kind).update(changes)

    return apply


def clear(document):
    document["rows"] = []


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("inspect", clear),
        ("inspect", change("model", correct="439")),
        ("inspect", change("model", sha256="x")),
        ("inspect", change("inversion", norm=None)),
        ("inspect", change("inversion", **{"class": ["a"]})),
        ("inspect", change("inversion", picture="javascript:alert(1)")),
        ("inspect", change("inversion", picture="http://example.org/a.png")),
        ("inspect", change("sign", threshold="low")),
        ("inspect", change("verdict", suspicious=1)),
        ("inspect", lambda document: document["settings"].update(sha256=5)),
        ("inspect", lambda document: document["settings"].update(classes="abc")),
        ("inspect", lambda document: document["settings"].update(model=True)),
        ("inspect", lambda document: document["versions"].update(torch=[])),
        ("inspect", lambda document: document["machine"].update(gpus="many")),
        ("card", clear),
        ("card", change("repair", acc_drop="1")),
        ("card", change("repair", acc_drop_low=1.0)),
        ("card", change("repair", acc_drop=1e309)),
        ("card", change("repair", output="../../etc/passwd")),
        ("card", change("repair", output="..")),
        ("card", change("repair", output="a\\b")),
        ("card", change("repair", kept="yes")),
        ("card", change("epoch", loss=[1])),
        ("card", change("epoch", accuracy=2)),
        ("card", change("epoch", epoch=10**30)),
        ("card", change("distance", layers=[5])),
        ("card", change("distance", layers=[{"name": "a", "relative": "far"}])),
        ("card", change("distance", total=[])),
        ("pilot", clear),
        ("pilot", change("trial", acc=1.5)),
        ("pilot", change("trial", pareto=None)),
        ("pilot", change("trial", distance_weight=-1)),
        ("pilot", change("sensitivity", acc=[0.5])),
        ("pilot", change("sensitivity", values=list(range(51)))),
        ("pilot", change("recommendation", why=None)),
        ("spectrum", clear),
        ("spectrum", change("spectrum", nodes=[[1.0], [1.0, 2.0]])),
        ("spectrum", change("spectrum", nodes=[])),
        ("spectrum", change("spectrum", nodes=[[0.0] * 20_001])),
        ("spectrum", change("spectrum", nodes=[[0.0]] * 1001)),
        ("spectrum", change("spectrum", weights=[[0.1]])),
        ("spectrum", change("spectrum", eigenvalues=[])),
        ("spectrum", change("spectrum", model="another")),
        ("spectrum", change("model", model="repaired")),
    ],
)
def test_a_malformed_document_is_one_line_that_names_it_and_writes_nothing(tmp_path, name, spoil):
    path = write(tmp_path, name)
    text = path.read_text().replace("1e309", "Infinity")
    path.write_text(text)
    edit(path, spoil)
    with pytest.raises(ValueError, match=rf"^{name}\.json") as caught:
        write_case(tmp_path, tmp_path / "report.html")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ROWS)
def test_any_value_in_any_field_is_read_or_refused_by_name(tmp_path, name):
    path = write(tmp_path, name)
    document = json.loads(path.read_text(encoding="utf-8"))
    complaints = set()
    firsts = {row["kind"]: row for row in reversed(document["rows"])}
    for row in firsts.values():
        for field, old in list(row.items()):
            for value in (None, True, -1, 10**400, "x" * 2000, [], [None], {}, [[1, 2], [3]]):
                row[field] = value
                path.write_text(json.dumps(document), encoding="utf-8")
                try:
                    read_case(tmp_path)
                except ValueError as error:
                    complaints.add(str(error))
            row[field] = old
    assert len(complaints) > 20
    for error_text in complaints:
        assert error_text.startswith(f"{name}.json"), error_text
        assert error_text.isprintable()
        assert len(error_text) < 400


HOSTILE = "</title><script>alert(1)</script>\x1b[2J\n‮$\\frac{$_{"


def hostile(value):
    """Every text of a document replaced by one that no page should take as it is."""
    if isinstance(value, dict):
        keep = ("kind", "role", "sha256", "input_sha256", "output_sha256", "output", "picture")
        return {key: v if key in keep else hostile(v) for key, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


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
    assert "<h2>The repair</h2>" in text
    assert "<h2>Distance per layer</h2>" not in text
    assert "<h2>The triggers found</h2>" not in text


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


def test_more_rows_than_can_be_drawn_are_refused(tmp_path):
    write(tmp_path, "pilot", 1001 * pilot_rows()[:1])
    with pytest.raises(ValueError, match="1001 rows of kind trial, at most 1000"):
        read_case(tmp_path)


def test_settings_of_a_case_are_those_of_the_documents(tmp_path):
    write(tmp_path, "inspect")
    assert list(read_case(tmp_path).classes) == settings()["classes"]
