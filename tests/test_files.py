import pytest

from keras_resnet.files import written_beside


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_beside(path) as partial:
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"


def test_a_failure_keeps_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), written_beside(path) as partial:
        partial.write_text("new") and tmp_path.read_text()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    for fails in (True, False):
        try:
            with written_beside(tmp_path / "folder") as partial:
                partial.mkdir()
                (partial / "file").write_text("")
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert list(tmp_path.iterdir()) == []
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["file"]
