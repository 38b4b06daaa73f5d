"""What runs with torch and numpy alone, and what the rest says about the extra that it needs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from d3fast.data.sklearn_digits import all_digits
from d3fast.io.arrow import read_columnar
from d3fast.io.images import decode_image
from d3fast.io.toml_file import read_toml
from d3fast.runtime.extras import CLI, require

HERE = Path(__file__).parent
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}
NEEDED_BY_OTHERS = {"scipy", "tomli"}  # of scikit-learn; of Python 3.10
OTHER_PROCESS = "d3fast.io.arrow_reader"  # d3fast.io.arrow checks before it starts it


def start(*arguments):
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def core():
    done = start(str(HERE / "core_only.py"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_training_and_repair_run_with_torch_and_numpy_alone(core):
    assert core["distance"] > 0
    assert core["epochs"] == 3
    assert core["repaired"] > 0
    assert 0 <= core["acc"] <= 1


@pytest.mark.slow
def test_a_module_that_lacks_a_package_names_the_extra(core):
    failed = core["failed"]
    failed.pop(OTHER_PROCESS, None)
    assert {"d3fast.audit", "d3fast.cli", "d3fast.results"} <= set(failed)
    silent = [
        f"{module}: {message}"
        for module, message in failed.items()
        if not re.search(r" needs .+: pip install 'd3fast\[\w+\]'$", message)
    ]
    assert silent == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "wing", ["attacks", "data", "defenses", "detox", "hub", "models", "optim", "training"]
)
def test_a_wing_without_reports_imports_with_the_core(wing, core):
    assert f"d3fast.{wing}" not in core["failed"]


def test_the_command_without_its_extra_is_one_line_and_code_2():
    code = (
        "import sys; sys.modules['typer'] = sys.modules['rich'] = None\n"
        "from d3fast.__main__ import main; main()"
    )
    done = start("-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the command d3fast needs typer, rich: pip install 'd3fast[cli]'\n"
    )


def test_the_modules_are_those_of_the_extra():
    extras = read_toml(HERE.parents[1] / "pyproject.toml")["project"]["optional-dependencies"]
    names = [re.match(r"[\w-]+", line)[0] for line in extras["cli"]]
    assert {IMPORTED_AS.get(name, name) for name in names} == {*CLI, *NEEDED_BY_OTHERS}


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("sklearn", "cli", all_digits),
        ("PIL", "cli", lambda: decode_image(b"", "a.png")),
        ("msgspec", "tables", lambda: read_columnar(Path("a.parquet"), list, 1)),
    ],
    ids=["data", "image", "table"],
)
def test_a_function_that_lacks_a_package_names_the_extra(module, extra, use, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}: pip install 'd3fast\[{extra}\]'$"):
        use()


def test_all_missing_modules_are_named():
    with pytest.raises(ModuleNotFoundError, match="a page needs no_a, no_b: pip") as raised:
        require("a page", "json", "no_a", "no_b")
    assert raised.value.name == "no_a"
