# SPDX-License-Identifier: Apache-2.0
"""Runner of the studies: ``python -m benchmarks.studies NAME [OPTIONS]``."""

import typer

from benchmarks.studies import (
    ablations,
    calibration,
    differential,
    evasion,
    feature_mask,
    in_backward,
    inspection,
    inspection_cost,
    narrow_state,
    precision,
    pretrained,
    scaling,
    search,
    shards,
    spectrum_peers,
    text,
    threads,
    two_classes,
    weights,
    why,
)

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
for module, command in (
    (search, search.search),
    (ablations, ablations.ablations),
    (precision, precision.precision),
    (inspection, inspection.inspection),
    (inspection, inspection.waves),
    (differential, differential.differential),
    (feature_mask, feature_mask.feature_mask),
    (weights, weights.weights),
    (calibration, calibration.calibration),
    (calibration, calibration.targets),
    (two_classes, two_classes.two_classes),
    (inspection_cost, inspection_cost.inspection_cost),
    (evasion, evasion.evasion),
    (pretrained, pretrained.pretrained),
    (text, text.text),
    (scaling, scaling.scaling),
    (shards, shards.shards),
    (why, why.why),
    (threads, threads.threads),
    (narrow_state, narrow_state.narrow_state),
    (in_backward, in_backward.in_backward),
    (spectrum_peers, spectrum_peers.spectrum_peers),
):
    summary = (module.__doc__ or "").partition("\n")[0]
    app.command(command.__name__.replace("_", "-"), help=summary)(command)

if __name__ == "__main__":
    app()
