# SPDX-License-Identifier: Apache-2.0
"""Services for every wing: devices, seeds, progress bars, argument checks, worker processes."""
