# SPDX-License-Identifier: Apache-2.0
"""What every wing needs of the machine: devices, seeds, progress bars, argument checks."""
