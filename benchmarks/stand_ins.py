# SPDX-License-Identifier: Apache-2.0
"""What d3fast imports but a GPU machine without network may lack, and no step needs.

``import d3fast`` imports packages that tables, progress bars and checkpoint files need. A stand-in
can be imported from, and raises as soon as it is used.
"""

import importlib.util
import os
import sys
from pathlib import Path

NEEDED_TO_IMPORT = {
    "rich": ("box", "console", "progress", "table", "text"),
    "safetensors": ("torch",),
    "sklearn": ("datasets",),
}
_SOURCE = """\
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*args, **kwargs):
        raise ImportError("{package} is not installed on this machine")

    return type(name, (Exception,), {{"__init__": refuse}})
"""


def provide(folder: Path) -> list[str]:
    """Make stand-ins for what is missing, here and in processes started from here.

    Args:
        folder: where their files go.

    Returns:
        Names of the missing packages.
    """
    missing = [name for name in NEEDED_TO_IMPORT if importlib.util.find_spec(name) is None]
    for name in missing:
        package = folder / name
        package.mkdir(parents=True, exist_ok=True)
        source = _SOURCE.format(package=name)
        for module in ("__init__", *NEEDED_TO_IMPORT[name]):
            (package / f"{module}.py").write_text(source)
    if missing:
        sys.path.append(str(folder))
        known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        os.environ["PYTHONPATH"] = os.pathsep.join([*known, str(folder)])
        importlib.invalidate_caches()
    return missing
