# SPDX-License-Identifier: Apache-2.0
"""The trade-off before the commitment: short repairs over a grid of settings, compared.

options     what is tried: settings of (distance weight, lambda, epsilon), epochs
halving     which settings go on: Pareto ranks and the ladder of rungs
trial       jobs: one repair and its measurement
advice      the front, the sensitivity per parameter, the recommendation
run         ``run_pilot``, all of it
"""

from d3fast.audit.pilot.options import PilotOptions, Setting
from d3fast.audit.pilot.run import Pilot, run_pilot

__all__ = ["Pilot", "PilotOptions", "Setting", "run_pilot"]
