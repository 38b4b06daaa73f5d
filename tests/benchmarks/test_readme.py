"""The tool that puts tables into pages; ``make docs-check`` compares the pages themselves."""

import pytest

from benchmarks import readme
from d3fast.results.store import Results


def test_an_unknown_table_is_refused(tmp_path):
    Results("d3fast demo", {}, []).write(tmp_path / "other.json")
    with pytest.raises(ValueError, match="'tables'"):
        readme.filled("<!-- table: other#tables -->\n<!-- end -->", tmp_path)


def test_text_outside_of_the_markers_is_kept():
    text = "before\n<!-- a comment -->\nafter"
    assert readme.filled(text) == text


def test_the_columns_are_those_of_the_first_of_several_tables():
    text = "**a**\n\n|x|y|z|\n|--|--|--|\n|1|2|3|\n\n**b**\n\n|x|z|\n|--|--|\n|4|5|\n"
    assert readme._columns(text, ["z"]) == "|x|z|\n|--|--|\n|1|3|"
