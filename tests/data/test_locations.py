"""Default folders of downloaded data sets."""

from d3fast.data.locations import cache_dir


def test_the_cache_folder_follows_xdg_cache_home_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir("x") == tmp_path / "d3fast" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir("x") == tmp_path / ".cache" / "d3fast" / "x"
