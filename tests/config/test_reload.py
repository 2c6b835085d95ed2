"""When a file counts as changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.config.problem import ConfigErrors
from sidecar.config.reload import ConfigSource


def put(path: Path, level: str) -> None:
    """Replace the file as an editor does: a new inode, atomically."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"log: {{level: {level}}}\n")
    fresh.replace(path)


def source(path: Path) -> ConfigSource:
    return ConfigSource(str(path), {})


def test_a_file_changes_when_its_content_does(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = source(path)
    assert config.load().log.level == "info"
    assert not config.changed()
    put(path, "debug")
    assert config.changed()
    assert config.load().log.level == "debug"
    assert not config.changed()


def test_a_new_file_with_the_same_content_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = source(path)
    config.load()
    put(path, "info")
    assert not config.changed()


def test_a_new_time_alone_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = source(path)
    config.load()
    os.utime(path, (1, 1))
    assert not config.changed()


def test_the_swap_of_a_symlink_as_for_a_configmap_is_a_change(tmp_path: Path) -> None:
    for name, level in (("one", "info"), ("two", "debug")):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "sidecar.yaml", level)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "sidecar.yaml").symlink_to("..data/sidecar.yaml")
    config = source(tmp_path / "sidecar.yaml")
    config.load()
    (tmp_path / "..data_tmp").symlink_to("two")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert config.changed()
    assert config.load().log.level == "debug"


def test_a_wrong_file_is_reported_once_until_it_changes_again(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = source(path)
    config.load()
    put(path, "loud")
    assert config.changed()
    with pytest.raises(ConfigErrors, match=r"log\.level must be one of"):
        config.load()
    assert not config.changed()
    put(path, "debug")
    assert config.changed()
    assert config.load().log.level == "debug"


def test_a_file_that_is_away_has_not_changed_and_one_that_returns_may_have(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = source(path)
    config.load()
    path.unlink()
    assert not config.changed()
    with pytest.raises(ConfigErrors, match="cannot be read"):
        config.load()
    put(path, "info")
    assert config.changed()
    assert config.load().log.level == "info"


def test_what_cannot_be_read_is_a_change_that_load_explains_once(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = source(path)
    config.load()
    path.unlink()
    path.mkdir()
    assert config.changed()
    with pytest.raises(ConfigErrors, match="Is a directory"):
        config.load()
    assert not config.changed()


def test_flags_and_variables_hold_over_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    put(path, "info")
    config = ConfigSource(str(path), {"SIDECAR_LOG_FORMAT": "json"}, {"log.level": "error"})
    assert (config.load().log.level, config.load().log.format) == ("error", "json")
    put(path, "debug")
    assert config.changed()
    assert config.load().log.level == "error"
