import pytest
from errors import one_line_error

from keras_resnet.data.labels_file import read_labels


@pytest.mark.parametrize(
    "text", ["cat\ndog", "\ufeffcat\ndog\n", "cat\r\ndog\r\n\r\n", " cat \ndog\t\n \n\n"]
)
def test_marks_blanks_and_empty_lines_at_the_end_do_not_count(tmp_path, text):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert read_labels(tmp_path / "labels.txt") == ["cat", "dog"]


def test_are_in_one_form_of_unicode(tmp_path):
    (tmp_path / "labels.txt").write_text("cafe\u0301\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ["caf\u00e9"]


def test_a_blank_line_between_names_is_refused(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\n\ndog\n")
    with one_line_error("labels.txt", "line 2: blank"):
        read_labels(tmp_path / "labels.txt")


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "labels.txt").write_bytes("käse\n".encode("latin-1"))
    with one_line_error("labels.txt", "is not text in UTF-8"):
        read_labels(tmp_path / "labels.txt")
