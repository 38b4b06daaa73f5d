# SPDX-License-Identifier: Apache-2.0
"""How fast a step is: against the memory limit of the same machine, against every peer.

``make bench`` runs ``test_step.py`` (one optimizer step) and ``test_detoxify.py`` (a whole repair)
and writes one JSON to ``benchmarks/results``; ``python -m benchmarks.report FILE`` turns it into
tables and a plot. What a step has to do is said in ``workloads``, who does it in ``contenders``,
how it is timed in ``timing``; ``yardsticks`` measures the limit.
"""
