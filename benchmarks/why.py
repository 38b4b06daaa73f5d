# SPDX-License-Identifier: Apache-2.0
"""What curvature and distance say of repairs: ``python -m benchmarks.why --out runs/benchmark``.

The suspects of the cpu benchmark under BadNets and Blended, repaired by plain fine-tuning, by
fine-tuning at D3's step and by D3, all as the benchmark repairs them, and looked at by
``d3fast.spectrum.portrait``. A folder in which the benchmark was run has the suspects already.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from d3fast.benchmark.attack_jobs import AttackCell
from d3fast.benchmark.plan import GridPreset, changed_suspects, chosen_repairs, plan
from d3fast.benchmark.presets import PRESETS
from d3fast.benchmark.repair_jobs import RepairCell, read_suspect
from d3fast.data import stratified_split
from d3fast.io.files import folder
from d3fast.results.engine import Place, Row, run_cells
from d3fast.results.store import Results
from d3fast.runtime import environment
from d3fast.runtime.seeding import generator
from d3fast.spectrum import PortraitConfig, portrait

RESULTS = Path(__file__).parent / "results"
ATTACKS = (("badnets", None), ("blended", None))
REPAIRS = ("fine-tuning", "fine-tuning (D3's lr)", "d3")
TEST_IMAGES = 500
CONFIG = PortraitConfig(k=5, probes=4, steps=20)


@dataclass(frozen=True)
class PortraitCell:
    """A suspect, its repairs, and all that is measured of them.

    Attributes:
        suspect: the cell that made the suspect; it has to be run before.
        repairs: the cells of its repairs, which are repeated here to have the models.
        labels: their names in the table.
        config: what is measured.
        test_images: on so many.
    """

    suspect: AttackCell
    repairs: tuple[RepairCell, ...]
    labels: tuple[str, ...]
    config: PortraitConfig
    test_images: int

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.suspect.name}-portrait"

    def run(self, place: Place, progress: bool) -> Row:
        """Repair and measure."""
        spec = self.suspect.spec
        splits = spec.splits(place.data_dir)
        suspect, attack = read_suspect(self.suspect, splits, place.folder)
        models: dict[str, nn.Module] = {"suspect": suspect}
        for label, cell in zip(self.labels, self.repairs, strict=True):
            shaped = suspect.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            models[label] = cell.repair(shaped, splits.clean, torch.device("cpu"), progress).model
        draws = generator(spec.seed, "portrait")
        (shown,) = stratified_split(splits.test.labels, [self.test_images], draws)
        test = splits.test.subset(shown)
        rows = portrait(models, test, attack, config=self.config, progress=progress)
        return {"attack": spec.attack, "seed": spec.seed, "rows": rows}


def why_cells(preset: GridPreset, seeds: list[int]) -> tuple[list[Any], list[PortraitCell]]:
    """Twins and suspects, and the portraits that need them."""
    chosen = chosen_repairs(changed_suspects(preset, attacks=ATTACKS), REPAIRS)
    whole = plan(chosen, seeds)
    portraits = []
    for suspect in (planned.cell for planned in whole.suspects):
        own = [planned for planned in whole.repairs if planned.suspect == suspect]
        portraits.append(
            PortraitCell(
                suspect,
                tuple(planned.cell for planned in own),
                tuple(planned.marks["defense"] for planned in own),
                CONFIG,
                TEST_IMAGES,
            )
        )
    return [planned.cell for planned in (*whole.twins, *whole.suspects)], portraits


def main() -> None:
    """Run what is not finished yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=environment.cores())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    before, portraits = why_cells(PRESETS["cpu"], list(range(asked.seeds)))
    place = Place(folder(asked.out))
    run_cells(before, place, workers=asked.workers, title="suspects")
    found = run_cells(portraits, place, workers=asked.workers, title="portraits")
    rows = [
        {"attack": cell["attack"], "seed": cell["seed"], **row}
        for cell in found
        for row in cell["rows"]
    ]
    path = RESULTS / "why-cpu.json"
    settings = {"test_images": TEST_IMAGES, **asdict(CONFIG)}
    Results(f"python -m benchmarks.why --seeds {asked.seeds}", settings, rows).write(path)
    Console().print(f"Written to {path}.", highlight=False)


if __name__ == "__main__":
    main()
