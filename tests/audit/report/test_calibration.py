"""What ``d3fast calibrate`` prints."""

import io

from rich.console import Console

from d3fast.audit.calibration import read_calibration
from d3fast.audit.report.calibration import print_calibration
from tests.audit.calibrations import NAMES, write_calibration


def test_it_says_accuracy_scores_and_the_smallest_p_value(tmp_path):
    found = read_calibration(write_calibration(tmp_path / "a.json", models=19))
    file = io.StringIO()
    print_calibration(found, Console(file=file, width=200))
    text = file.getvalue()
    assert "19 clean models" in text
    assert "90.0" in text
    assert "The smallest p-value is 0.05." in text
    for name in NAMES:
        assert name in text
