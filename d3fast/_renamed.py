# SPDX-License-Identifier: Apache-2.0
"""Names of release 0.1.0 that moved: each still works for one release, with a DeprecationWarning.

``MODULES`` maps old module names to new ones, ``NAMES`` old names in ``d3fast`` itself. Both tables
are listed in CHANGELOG.md and go in 0.3.0.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any

NAMES: Mapping[str, str] = MappingProxyType({"Case": "Audit", "open_case": "open_audit"})
MODULES: Mapping[str, str] = MappingProxyType(
    {
        "d3fast.anomaly": "d3fast.audit.anomaly",
        "d3fast.benchmark.attacks": "d3fast.benchmark.attack_jobs",
        "d3fast.benchmark.cells": "d3fast.results.jobs",
        "d3fast.benchmark.relearn": "d3fast.benchmark.relearning_jobs",
        "d3fast.benchmark.repairs": "d3fast.benchmark.repair_jobs",
        "d3fast.case": "d3fast.audit.resolve",
        "d3fast.checks": "d3fast.runtime.checks",
        "d3fast.data.archives": "d3fast.io.archives",
        "d3fast.data.idx": "d3fast.io.idx",
        "d3fast.data.pictures": "d3fast.data.image_files",
        "d3fast.data.places": "d3fast.io.paths",
        "d3fast.data.plain_pickle": "d3fast.io.plain_pickle",
        "d3fast.demo": "d3fast.benchmark.demo",
        "d3fast.detox.resuming": "d3fast.detox.resume",
        "d3fast.detox.saving": "d3fast.detox.save",
        "d3fast.devices": "d3fast.runtime.devices",
        "d3fast.environment": "d3fast.runtime.environment",
        "d3fast.files": "d3fast.io.files",
        "d3fast.findings": "d3fast.audit.model_report",
        "d3fast.implant": "d3fast.benchmark.implant",
        "d3fast.inspection": "d3fast.audit",
        "d3fast.inspection.head": "d3fast.audit.detectors.head",
        "d3fast.inspection.inspect": "d3fast.audit.inspect",
        "d3fast.inspection.margin": "d3fast.audit.detectors.margin",
        "d3fast.inspection.patch": "d3fast.audit.detectors.patch",
        "d3fast.inspection.pictures": "d3fast.audit.pictures",
        "d3fast.inspection.registry": "d3fast.audit.detectors.registry",
        "d3fast.inspection.shift": "d3fast.audit.detectors.shift",
        "d3fast.inspection.signs": "d3fast.audit.detectors.base",
        "d3fast.inspection.subject": "d3fast.audit.detectors.context",
        "d3fast.inspection.verdict": "d3fast.audit.verdict",
        "d3fast.inversion": "d3fast.audit.inversion",
        "d3fast.labels": "d3fast.training.labels",
        "d3fast.loaders": "d3fast.training.loaders",
        "d3fast.loss": "d3fast.training.loss",
        "d3fast.metrics": "d3fast.training.metrics",
        "d3fast.models.checkpoints": "d3fast.io.checkpoints",
        "d3fast.models.stored": "d3fast.io.entries",
        "d3fast.models.torch_files": "d3fast.io.torch_files",
        "d3fast.models.weight_files": "d3fast.io.weight_files",
        "d3fast.monitoring": "d3fast.audit.monitor",
        "d3fast.optim.compiled": "d3fast.optim.backends.compiled",
        "d3fast.optim.fused": "d3fast.optim.backends.native",
        "d3fast.optim.fused_cuda": "d3fast.optim.backends.cuda",
        "d3fast.optim.low_precision": "d3fast.optim.kahan",
        "d3fast.optim.placements": "d3fast.optim.backends.dtensor",
        "d3fast.optim.reference": "d3fast.optim.backends.torch_backend",
        "d3fast.optim.references": "d3fast.optim.anchors",
        "d3fast.optim.sharded": "d3fast.optim.backends.sharded",
        "d3fast.pickles": "d3fast.io.pickles",
        "d3fast.pilot": "d3fast.audit.pilot",
        "d3fast.pilot.advice": "d3fast.audit.pilot.advice",
        "d3fast.pilot.halving": "d3fast.audit.pilot.halving",
        "d3fast.pilot.options": "d3fast.audit.pilot.options",
        "d3fast.pilot.run": "d3fast.audit.pilot.run",
        "d3fast.pilot.trial": "d3fast.audit.pilot.trial",
        "d3fast.pilot.workers": "d3fast.results.pool",
        "d3fast.processes": "d3fast.runtime.processes",
        "d3fast.progress": "d3fast.runtime.progress",
        "d3fast.relearning": "d3fast.benchmark.relearning",
        "d3fast.report": "d3fast.results",
        "d3fast.report.attacks": "d3fast.benchmark.report.attacks",
        "d3fast.report.benchmark": "d3fast.benchmark.report.benchmark",
        "d3fast.report.benchmark_numbers": "d3fast.benchmark.report.numbers",
        "d3fast.report.benchmark_plots": "d3fast.benchmark.report.plots",
        "d3fast.report.benchmark_tables": "d3fast.benchmark.report.tables",
        "d3fast.report.benchmark_verdict": "d3fast.benchmark.report.goals",
        "d3fast.report.card": "d3fast.audit.report.card",
        "d3fast.report.case": "d3fast.audit.report.folder",
        "d3fast.report.case_origin": "d3fast.results.schema.document",
        "d3fast.report.case_page": "d3fast.audit.report.page",
        "d3fast.report.case_pictures": "d3fast.audit.report.pictures",
        "d3fast.report.case_plots": "d3fast.audit.report.plots",
        "d3fast.report.case_rows": "d3fast.audit.report.documents",
        "d3fast.report.case_tables": "d3fast.audit.report.tables",
        "d3fast.report.case_verdict": "d3fast.audit.report.verdict",
        "d3fast.report.case_words": "d3fast.audit.report.words",
        "d3fast.report.demo": "d3fast.benchmark.report.demo",
        "d3fast.report.inspection": "d3fast.audit.report.inspection",
        "d3fast.report.page": "d3fast.results.page",
        "d3fast.report.pilot": "d3fast.audit.report.pilot",
        "d3fast.report.pilot_plots": "d3fast.audit.report.pilot_plots",
        "d3fast.report.plot": "d3fast.results.plot",
        "d3fast.report.relearning_plot": "d3fast.benchmark.report.relearning_plot",
        "d3fast.report.results": "d3fast.results.store",
        "d3fast.report.spectrum": "d3fast.audit.report.spectrum",
        "d3fast.report.spectrum_plots": "d3fast.audit.report.spectrum_plots",
        "d3fast.report.table": "d3fast.results.table",
        "d3fast.rows": "d3fast.results.schema.fields",
        "d3fast.schedules": "d3fast.optim.schedules",
        "d3fast.seeding": "d3fast.runtime.seeding",
        "d3fast.sharpness": "d3fast.training.sam",
        "d3fast.untrusted": "d3fast.io.untrusted",
    }
)


class _Renamed(MetaPathFinder, Loader):
    """Import a module under its old name: the same object as under the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MODULES[spec.name]
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has put the old name's spec in the place of the module's own.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def renamed_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module some of whose names were renamed.

    Args:
        module: its ``__name__``.
        names: new name by old name.
    """

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = names[name]
        warnings.warn(f"{module}.{name} is now {module}.{new}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], new)

    return __getattr__


def install() -> None:
    """Let old module names be imported; they are asked last, after every real module."""
    if not any(isinstance(finder, _Renamed) for finder in sys.meta_path):
        sys.meta_path.append(_Renamed())
