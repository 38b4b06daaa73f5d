# SPDX-License-Identifier: Apache-2.0
"""Which options and which target an attack takes on which data set.

A trigger measures something only if a model that was never poisoned does not answer it with the
target (the clean-model floor), and that depends on the data: brightening a dark background looks
like one garment, a stripe like another. The choices below were made on seeds 100 and up by
the floor and the ASR; ``d3fast benchmark attacks`` measures them on other seeds.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Any other data set takes these: the options of the literature, which are for colour images.
COLOUR = "colour"
RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "digits": {"badnets": {"target": 0, "size": 2, "margin": 0}},
        "fashion-mnist": {"badnets": {"target": 1}},
        COLOUR: {
            "badnets": {"target": 0},
            "blended": {"target": 0},
            "sig": {"target": 0},
            "wanet": {"target": 0},
            "low-frequency": {"target": 0},
            "input-aware": {"target": 0},
            "ssba": {"target": 0},
        },
    }
)
