"""Columns of CSV and JSON files: what is read, and every limit."""

import pytest

from d3fast.io import tables
from d3fast.io.tables import read_csv, read_json

READERS = {".csv": read_csv, ".tsv": read_csv, ".json": read_json, ".jsonl": read_json}


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads its columns, all or some."""

    def call(suffix, content, *columns):
        path = tmp_path / f"table{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return READERS[suffix](path, lambda names: columns or names).columns

    return call


GOOD = {"text": ["a, b", 'say "c"', "two\nlines"], "n": ["1", "2", "3"]}


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_csv_is_read_with_any_delimiter_and_quotes(read, delimiter):
    rows = ["text,n", '"a, b",1', '"say ""c""",2', '"two\nlines",3']
    content = "\r\n".join(delimiter.join(row.rsplit(",", 1)) for row in rows)
    assert read(".csv", "\ufeff" + content) == GOOD


def test_tsv_is_separated_by_tabs_alone(read):
    assert read(".tsv", "a,b\tn\nx,y\t1\n\n") == {"a,b": ["x,y"], "n": ["1"]}


JSON_FORMS = [
    (".jsonl", '{"t":"a","n":1}\n\n{"t":"b","n":null}\n'),
    (".json", '[{"t":"a","n":1},\n {"t":"b","n":null}]'),
    (".json", '{"t":"a","n":1} {"t":"b","n":null}'),
]


@pytest.mark.parametrize(("suffix", "content"), JSON_FORMS)
@pytest.mark.parametrize("chunk", [1, 7, 2**16])
def test_json_objects_are_read_in_pieces_of_any_size(read, monkeypatch, suffix, content, chunk):
    monkeypatch.setattr(tables, "_CHUNK", chunk)
    assert read(suffix, content) == {"t": ["a", "b"], "n": [1, None]}


def test_only_chosen_columns_are_kept(read):
    assert read(".csv", "a,b\n1,2\n", "b") == {"b": ["2"]}
    assert read(".jsonl", '{"a":1,"b":2}{"b":3}', "b") == {"b": [2, 3]}


@pytest.mark.parametrize(
    ("suffix", "content", "says"),
    [
        (".csv", "a,a\n1,2\n", "the column 'a' twice"),
        (".csv", "a,b\n1\n", "line 2 has 1 fields, its header has 2"),
        (".csv", 'a\n"b\n', "unexpected end of data"),
        (".csv", b"a\n\xff\n", "not UTF-8"),
        (".csv", "a\nx\0y\n", "line 2 holds a NUL"),
        (".csv", "a\n" + "x" * 2**20 + "\n", "line 2 has more than 1048576 characters"),
        (".csv", "a\n" + "x" * 2**18 + "\n", "field larger than field limit"),
        (".csv", ",".join(f"c{n}" for n in range(1001)), "1001 columns, more than 1000"),
        (".json", "[1, 2]", "its list of objects is damaged"),
        (".json", '[{"a":1}', "its list of objects is damaged"),
        (".json", '[{"a":1} {"a":2}]', "its list of objects is damaged"),
        (".json", '[{"a":1}] 2', "objects alone"),
        (".json", '"text"', "objects alone"),
        (".jsonl", '{"a":1}\n{"b":1}', "object 2 has no 'a'"),
        (".jsonl", '{"a":', "Expecting value"),
        (".jsonl", '{"a":' + "[" * 10**5, "nests too deeply"),
        (".jsonl", '{"a":' + "9" * 5000 + "}", "an integer of 5000 digits"),
        (".jsonl", '{"a":NaN}', "holds NaN"),
        (".jsonl", '{"a":"' + "x" * 2**22 + '"}', "an object of more than"),
        (".jsonl", b'{"a":"\xff"}', "not UTF-8"),
    ],
)
def test_what_is_no_table_is_one_line(read, suffix, content, says):
    with pytest.raises(ValueError, match=says) as raised:
        read(suffix, content)
    assert str(raised.value).isprintable()
    assert f"table{suffix}" in str(raised.value)


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("MAX_ROWS", 2, "more than 2 rows"),
        ("MAX_FIELDS", 4, "more than 4 fields"),
        ("MAX_TABLE", 8, "longer than 8 bytes"),
    ],
)
@pytest.mark.parametrize(
    ("suffix", "content"), [(".csv", "a,b\n" + "1,2\n" * 3), (".jsonl", '{"a":1,"b":2}\n' * 3)]
)
def test_a_table_beyond_a_limit_is_refused(read, monkeypatch, limit, value, says, suffix, content):
    monkeypatch.setattr(tables, limit, value)
    with pytest.raises(ValueError, match=says):
        read(suffix, content)


def test_blank_lines_are_counted(read, monkeypatch):
    monkeypatch.setattr(tables, "_MAX_LINES", 9)
    with pytest.raises(ValueError, match="more than 9 lines"):
        read(".csv", "a\n" + "\n" * 10)
