import importlib
import logging

import numpy as np

from keras_resnet import data
from keras_resnet.data.skipped import is_damaged, skipped_line, summary


def test_a_summary_has_a_size_that_does_not_grow_with_the_data():
    few = [skipped_line(f"{number}: it's.txt", "a text") for number in range(4)]
    assert summary(few) == few
    many = [skipped_line(f"pets/.git{n}", f"a hidden folder: {n} files") for n in range(10_000)]
    shown = summary([*few, *many])
    assert shown[:5] == [*few, many[0]]
    assert shown[-1] == "and 9,995 more: a hidden folder."
    kinds = [skipped_line("a.txt", "abc"[n % 3] * n) for n in range(1000)]
    assert len(summary(kinds)) < 120


def test_damage_is_of_one_kind_whatever_the_reason():
    damaged = [f"'{n}.png' is not an image that can be read: {'x' * n}." for n in range(50)]
    assert summary(damaged)[-1] == "and 45 more: cannot be read."
    assert all(map(is_damaged, damaged))
    assert is_damaged("'pets.tfrecord', train: image 13 (counted from 0) cannot be read.")
    assert not is_damaged(skipped_line("cannot be read.txt", "not an image"))


def test_notes_of_a_source_are_logged_when_it_is_loaded(monkeypatch, caplog):
    split = data.Split(np.zeros((2, 8, 8, 1), "uint8"), [0, 1])
    source = data.Source("x", "ab", 1, 8, "none", split, split, split, notes=("Look out.",))
    loading = importlib.import_module("keras_resnet.data.sources.load")
    kind = loading.Kind(lambda name: True, lambda name, policy: source)
    monkeypatch.setattr(loading, "KINDS", (kind,))
    with caplog.at_level(logging.WARNING, "keras_resnet"):
        assert data.load("anything").notes == source.notes
    assert "anything: Look out." in caplog.messages
