"""The envelope of a results file, and the origin of a document."""

import pytest

from d3fast.results.schema.document import Envelope, Machine, Origin, Settings
from d3fast.results.schema.fields import read_record

ENVELOPE = {
    "command": "d3fast inspect",
    "settings": {"sha256": 64 * "0", "seed": 0},
    "rows": [{"kind": "model"}],
    "versions": {"d3fast": "0.1.0", "torch": "2.13.0"},
    "machine": {"cores": 2, "cpu": "a CPU"},
    "commit": None,
    "created": "2026-11-29T12:00:00+00:00",
}


def test_an_envelope_has_every_field_and_no_other():
    assert read_record(ENVELOPE, Envelope).rows == [{"kind": "model"}]
    for field in ENVELOPE:
        rest = {key: value for key, value in ENVELOPE.items() if key != field}
        with pytest.raises(ValueError, match=f"{field} is missing"):
            read_record(rest, Envelope)
    with pytest.raises(ValueError, match="extra is unknown"):
        read_record({**ENVELOPE, "extra": 1}, Envelope)


def test_an_origin_is_read_from_the_envelope():
    origin = read_record({k: v for k, v in ENVELOPE.items() if k not in ("rows", "commit")}, Origin)
    assert origin.settings.sha256 == 64 * "0"
    assert (origin.versions.torch, origin.machine.cores) == ("2.13.0", 2)


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (Settings, {"sha256": "0"}, "sha256 must be 64 hexadecimal digits"),
        (Settings, {"classes": [1]}, r"classes\[0\] must be a text, got 1"),
        (Settings, {"classes": ["a"] * 100_001}, "classes must be of length <= 100000"),
        (Settings, {"repaired": []}, "repaired must be an object or null"),
        (Machine, {"gpus": ["a"] * 65}, "gpus must be of length <= 64, got 65"),
        (Machine, {"cores": True}, "cores must be an integer or null, got True"),
    ],
)
def test_an_error_names_the_field_and_the_value(kind, fields, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        read_record(fields, kind)


def test_an_unknown_field_with_a_hostile_name_is_one_printable_line():
    with pytest.raises(ValueError, match="is unknown") as caught:
        read_record({**ENVELOPE, "a\n - at `$.rows[9]`": 1}, Envelope)
    assert str(caught.value).isprintable()
