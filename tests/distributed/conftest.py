"""Ranks that wait for work: starting a process takes seconds, a test a fraction of one."""

import multiprocessing
import queue
import time

import pytest
import torch

if torch.distributed.is_available():
    from tests.distributed import ranks
else:
    collect_ignore_glob = ["test_*.py"]

PATIENCE = 60.0  # seconds until ranks that do not answer are given up


class Ranks:
    """Processes of one gloo group; every ``run`` calls one function on all of them."""

    def __init__(self, world, folder):
        self.world, self._folder, self._processes, self._starts = world, folder, [], 0

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._starts += 1
        store = self._folder / f"store-{self.world}-{self._starts}"
        self._inboxes = [context.Queue() for _ in range(self.world)]
        self._outbox = context.Queue()
        self._processes = [
            context.Process(
                target=ranks.serve,
                args=(i, self.world, str(store), inbox, self._outbox),
                daemon=True,
            )
            for i, inbox in enumerate(self._inboxes)
        ]
        for process in self._processes:
            process.start()

    def outcomes(self, function, *args):
        """What each rank returned, or the text of what it raised."""
        if not self._processes:
            self._start()
        for inbox in self._inboxes:
            inbox.put((function, args))
        answers, deadline = {}, time.monotonic() + PATIENCE
        while len(answers) < self.world:
            try:
                rank, answer = self._outbox.get(timeout=0.5)
                answers[rank] = answer
            except queue.Empty:
                if time.monotonic() > deadline:
                    self.stop()
                    silent = sorted(set(range(self.world)) - set(answers))
                    pytest.fail(f"ranks {silent} did not answer, the others: {answers}")
                for rank, process in enumerate(self._processes):
                    if not process.is_alive():
                        answers.setdefault(rank, ranks.DIED)
        if ranks.DIED in answers.values():
            self.stop()
        return [answers[rank] for rank in range(self.world)]

    def run(self, function, *args):
        """What each rank returned; fails if one raised."""
        answers = self.outcomes(function, *args)
        raised = [a for a in answers if isinstance(a, ranks.Raised)]
        assert not raised, raised[0].trace
        assert ranks.DIED not in answers, answers
        return answers

    def refusals(self, function, *args):
        """The last line of what every rank raised; fails if one did not."""
        answers = self.outcomes(function, *args)
        assert all(isinstance(a, ranks.Raised) for a in answers), answers
        return [a.line for a in answers]

    def stop(self):
        for process in self._processes:
            process.kill()
            process.join()
        self._processes = []


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """Groups of ranks by their number."""
    folder = tmp_path_factory.mktemp("ranks")
    groups = {world: Ranks(world, folder) for world in (2, 4)}
    yield groups
    for group in groups.values():
        group.stop()
