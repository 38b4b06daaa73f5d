"""A small benchmark on two raylets; one of them is killed while it has a job.

``python -m tests.distributed.ray_run FOLDER`` prints the rows as JSON. ``FOLDER/log.txt`` has a
line per event: a job started, stays (until its node is killed), or was published, and where.
"""

import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from d3fast.benchmark.grid import GridResult, run_grid
from d3fast.results.engines import EngineChoice
from d3fast.results.jobs import RunDir, key_of
from d3fast.results.run_store import RunStore
from tests.benchmark.test_grid import SMALL

NOT_STARTED = 77  # exit code
PRESET = replace(SMALL, ablations=(), ks=(1,))


def rows_of(result: GridResult):
    """The table's rows as JSON, without times."""
    return [{k: v for k, v in row.to_row().items() if k != "seconds"} for row in result.rows]


@dataclass(frozen=True)
class WatchedStore(RunStore):
    """A store that logs; on one node, once a job was published, a job stays and never ends."""

    log: str = ""
    victim: str = ""

    def _say(self, event, what=""):
        import ray

        with Path(self.log).open("a") as log:
            log.write(f"{event} {ray.get_runtime_context().get_node_id()} {what}\n")

    def fetch_triggers(self, folder):
        """Called by a job just before it computes."""
        self._say("started")
        if self._here() and "published" in Path(self.log).read_text():
            self._say("stays")
            time.sleep(600)
        super().fetch_triggers(folder)

    def _here(self):
        import ray

        return ray.get_runtime_context().get_node_id() == self.victim

    def publish(self, job, folder, known=()):
        super().publish(job, folder, known)
        self._say("published", key_of(job))


@dataclass(frozen=True)
class WatchedRay(EngineChoice):
    """Ray with a store that logs."""

    name: str = "ray"
    log: str = ""
    victim: str = ""

    def run_store(self, folder):
        return WatchedStore(str(folder.parent / "store"), log=self.log, victim=self.victim)


def kill_once_a_job_stays(cluster, node, log):
    """Kill a node, its workers included, as soon as a job runs on it that does not end."""
    while not (log.exists() and "stays" in log.read_text()):
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)


def start_two_nodes():
    """Start a cluster of two raylets with one core each; on a busy machine they may need a retry.

    A raylet gives up after 15 seconds if its agents, which import much, have not started.
    """
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    for _ in range(3):
        cluster = Cluster()
        try:
            cluster.add_node(**small, include_dashboard=False, no_monitor=True)
            return cluster, cluster.add_node(**small)
        except Exception as error:  # Ray has no type of its own for it
            cluster.shutdown()
            if not re.search(r"timed out|may not have started", str(error), re.IGNORECASE):
                raise
            print(f"a raylet did not start: {error}", file=sys.stderr)
    sys.exit(NOT_STARTED)


def main(folder):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster, node = start_two_nodes()
    try:
        log = folder / "log.txt"
        arguments = (cluster, node, log)
        threading.Thread(target=kill_once_a_job_stays, args=arguments, daemon=True).start()
        engine = WatchedRay(address=cluster.address, log=str(log), victim=node.node_id)
        result = run_grid(
            PRESET,
            RunDir(folder / "out"),
            seeds=[0],
            devices=["auto"],
            engine=engine,
            progress=False,
        )
    finally:
        cluster.shutdown()
    print(json.dumps(rows_of(result)))


if __name__ == "__main__":
    from tests.distributed import ray_run  # workers know the classes by this name

    ray_run.main(Path(sys.argv[1]))
