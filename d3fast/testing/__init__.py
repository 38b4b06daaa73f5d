# SPDX-License-Identifier: Apache-2.0
"""Contracts of attacks, defences and detectors, for the tests of packages that add some.

attacks         ``check_attack``, ``AttackCase``
defenses        ``check_defense``, ``DefenseCase``
detectors       ``check_detector``, ``DetectorCase``
rules           a case has ``rules()``; each is a function of the case
toys            the models and samples that they run on

``check_…`` applies all rules. For one test per rule, parametrise over ``case.rules()``::

    CASE = DefenseCase(Mine, options={"epochs": 2})

    @pytest.mark.parametrize("rule", CASE.rules(), ids=lambda rule: rule.__name__)
    def test_contract(rule):
        rule(CASE)
"""

from d3fast.testing.attacks import AttackCase, check_attack
from d3fast.testing.defenses import DefenseCase, check_defense
from d3fast.testing.detectors import DetectorCase, check_detector

__all__ = [
    "AttackCase",
    "DefenseCase",
    "DetectorCase",
    "check_attack",
    "check_defense",
    "check_detector",
]
