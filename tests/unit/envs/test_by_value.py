"""Modules that are pickled by value, as long as somebody needs them to be."""

from __future__ import annotations

import pickle

import cloudpickle

from graphvine.envs.by_value import pickled_by_value


def test_by_value_ends_with_its_block() -> None:
    with pickled_by_value(["json"]):
        assert "json" in cloudpickle.list_registry_pickle_by_value()
    assert "json" not in cloudpickle.list_registry_pickle_by_value()


def test_by_value_ends_with_the_last_who_needs_it() -> None:
    with pickled_by_value(["json"]):
        with pickled_by_value(["json", "pickle"]):
            assert {"json", "pickle"} <= cloudpickle.list_registry_pickle_by_value()
        assert "json" in cloudpickle.list_registry_pickle_by_value()
        assert "pickle" not in cloudpickle.list_registry_pickle_by_value()
    first, second = pickled_by_value(["json"]), pickled_by_value(["json"])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "json" in cloudpickle.list_registry_pickle_by_value(), "another thread goes on"
    second.__exit__(None, None, None)
    assert "json" not in cloudpickle.list_registry_pickle_by_value()


def test_by_value_leaves_the_users_own_wish_alone() -> None:
    cloudpickle.register_pickle_by_value(pickle)
    try:
        with pickled_by_value(["pickle"]):
            pass
        assert "pickle" in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(pickle)
