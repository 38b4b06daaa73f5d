# SPDX-License-Identifier: Apache-2.0
"""Detectors of backdoors in one checkpoint: one file each.

base        the protocol of a detector, ``run_detector``, its result
context     what a detector looks at: a frozen model and clean samples
scores      from one statistic per class to a score and its threshold
registry    ``DETECTORS``, all of them by name
"""
