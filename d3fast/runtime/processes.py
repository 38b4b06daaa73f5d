# SPDX-License-Identifier: Apache-2.0
"""What every worker process needs: no life of its own."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process as soon as the one that began it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def outlive() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=outlive, daemon=True).start()
