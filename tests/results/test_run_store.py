"""Run folders behind a URL: jobs on machines without a common disk, whole rows, no second run."""

import pickle

import pytest

from d3fast.results.engine import run_jobs
from d3fast.results.jobs import RunDir, cache_folder, key_of
from d3fast.results.pool import local_engine
from d3fast.results.run_store import RunStore, StoredJob
from tests.results.graph_jobs import TOTALS, chain, ran


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    """A store on a disk, and one that is no disk."""
    url = str(tmp_path / "store") if request.param == "file" else f"memory://{tmp_path.name}"
    return RunStore(url)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


def totals(jobs, folder, store):
    with local_engine(RunDir(folder), ["cpu"]) as engine:
        rows = run_jobs(jobs, engine, folder, store=store, progress=False)
    return [row["total"] for row in rows]


def files(store):
    system, root = store._open()
    return sorted(path.rpartition("/")[2] for path in system.find(root))


def test_a_path_is_a_url_of_a_file_system_and_a_store_can_be_sent(tmp_path):
    store = RunStore(str(tmp_path))
    assert store.url == tmp_path.as_uri()
    assert pickle.loads(pickle.dumps(store)) == store


def test_jobs_find_the_files_of_others_in_the_store(tmp_path, store, log):
    assert totals(chain(log), tmp_path / "a", store) == TOTALS
    rows = [f"{key_of(job)}.json" for job in chain(log)]
    assert set(rows) < set(files(store))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["cells"]


def test_another_machine_goes_on_with_what_is_in_the_store(tmp_path, store, log):
    assert totals(chain(log)[:2], tmp_path / "a", store) == TOTALS[:2]
    assert totals(chain(log), tmp_path / "b", store) == TOTALS
    assert sorted(ran(log)) == sorted(job.name for job in chain(log))


def test_a_job_that_is_retried_finds_its_row(tmp_path, store, log):
    job = StoredJob(chain(log)[0], store)
    assert [job.run(RunDir(tmp_path), False) for _ in range(2)] == [{"total": 1}] * 2
    assert ran(log) == ["twin"]


def test_a_row_of_this_machine_alone_does_not_count(tmp_path, store, log):
    with local_engine(RunDir(tmp_path), ["cpu"]) as engine:
        run_jobs(chain(log)[:1], engine, tmp_path, progress=False)
    assert totals(chain(log)[:2], tmp_path, store) == TOTALS[:2]
    assert ran(log) == ["twin", "twin", "suspect"]


def test_a_failed_job_leaves_nothing_in_the_store(tmp_path, store, log):
    with pytest.raises(ValueError, match="test cannot be run"):
        totals(chain(log, fails=True), tmp_path, store)
    assert not [name for name in files(store) if name.startswith("test")]


def test_a_copy_that_is_cut_off_leaves_no_row(tmp_path, store, log, monkeypatch):
    system, _ = store._open()

    def cut(source, target):
        raise OSError("the node was lost")

    monkeypatch.setattr(type(system), "mv", lambda self, source, target: cut(source, target))
    with pytest.raises(OSError, match="lost"):
        totals(chain(log)[:1], tmp_path, store)
    monkeypatch.undo()
    assert totals(chain(log), tmp_path, store) == TOTALS
    assert ran(log).count("twin") == 2


def test_a_damaged_row_in_the_store_is_computed_again(tmp_path, store, log):
    totals(chain(log)[:1], tmp_path / "a", store)
    system, root = store._open()
    row = f"{root}/{cache_folder(tmp_path).name}/{key_of(chain(log)[0])}.json"
    system.pipe_file(row, b'{"settings": ')
    assert totals(chain(log), tmp_path / "b", store) == TOTALS


def test_learned_triggers_reach_the_next_job(tmp_path, store, log):
    (job, *_) = chain(log)
    for folder in ("cells", "triggers"):
        (tmp_path / "a" / folder).mkdir(parents=True)
    (tmp_path / "a" / "triggers" / "ssba-1.safetensors").write_text("learned")
    (tmp_path / "a" / "cells" / f"{key_of(job)}.json").write_text("{}")
    store.publish(job, tmp_path / "a")
    store.fetch_triggers(tmp_path / "b")
    assert (tmp_path / "b" / "triggers" / "ssba-1.safetensors").read_text() == "learned"


def test_a_protocol_that_does_not_exist_is_refused(tmp_path, log):
    with pytest.raises(ValueError, match="warp"):
        totals(chain(log), tmp_path, RunStore("warp://bucket/run"))
