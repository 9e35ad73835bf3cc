import contextlib
import errno
import os
import subprocess
import sys
import time

import filelock
import pytest
from errors import one_line_error

from keras_resnet.files import locked, read_object, remove_leftovers, write_text, written_beside


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_beside(path) as partial:
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"


def test_a_link_stays(tmp_path):
    target, link = tmp_path / "elsewhere" / "file.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with written_beside(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_an_error_of_the_disk_names_the_file(tmp_path):
    expected = pytest.raises(OSError, match=r"No space left on device: '.*/file\.txt'")
    with expected, written_beside(tmp_path / "file.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="no file can replace"):
        written_beside(tmp_path / "pipe").__enter__()
    assert (tmp_path / "pipe").is_fifo()


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


# In another process: writes half of a folder or holds one, says so, and waits to be killed.
HALF = """
import sys, time
from keras_resnet.files import locked, written_beside
context = {"write": written_beside, "hold": locked}[sys.argv[1]]
with context(sys.argv[2]) as partial:
    if partial:
        partial.mkdir()
        (partial / "file").write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def another_process(what, folder):
    with subprocess.Popen(
        [sys.executable, "-c", HALF, what, str(folder)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"half\n"
        yield process
        process.kill()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    with another_process("write", tmp_path / "model") as process:
        (partial,) = tmp_path.iterdir()
        write_text(tmp_path / "first.txt", "")
        assert names_in(tmp_path) == sorted([partial.name, "first.txt"])  # it may still be going on
        process.kill()
        process.wait()
        write_text(tmp_path / "second.txt", "")
    assert names_in(tmp_path) == ["first.txt", "second.txt"]


def test_what_this_process_is_writing_stays(tmp_path):
    with written_beside(tmp_path / "a") as first, written_beside(tmp_path / "b") as second:
        first.write_text("first")
        remove_leftovers(tmp_path)
        second.write_text("second")
    assert names_in(tmp_path) == ["a", "b"]


def test_what_a_former_process_of_the_same_number_left_is_removed(tmp_path):
    # In a container, the first process always has number 1.
    with written_beside(tmp_path / "a") as partial:
        partial.write_text("")
        stray = partial.with_name(partial.name.replace(partial.name[1:9], "00000000"))
        stray.write_text("")
        remove_leftovers(tmp_path)
        assert names_in(tmp_path) == [partial.name]


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        (".00000000-1-000000-labels.txt", True),  # of another machine
        (".00000000-labels.txt", True),  # of an earlier version
        (".20240101-notes.txt", False),  # a person's
        (".gitignore", False),
    ],
)
def test_what_might_still_be_written_is_removed_after_a_day(tmp_path, name, goes):
    file = tmp_path / name
    file.write_text("")
    write_text(tmp_path / "labels.txt", "cat")
    assert names_in(tmp_path) == [name, "labels.txt"]
    os.utime(file, (time.time() - 90_000,) * 2)
    write_text(tmp_path / "labels.txt", "cat")
    assert file.exists() is not goes


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "run"
    message = r"run' is in use: another process .* choose another folder\.$"
    with another_process("hold", folder) as process:
        with pytest.raises(ValueError, match=message), locked(folder):
            pass
        process.kill()
        process.wait()
        with locked(folder), pytest.raises(ValueError, match="in use"), locked(folder):
            pass


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks")])
def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, caplog, error):
    def acquire(*_, **options):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with locked(tmp_path):
        assert "its disk has no locks" in caplog.text


def test_a_lock_leaves_nothing_behind(tmp_path):
    with locked(tmp_path / "runs" / "first"):
        pass
    assert names_in(tmp_path) == []
    with locked(tmp_path / "runs" / "first"):
        (tmp_path / "runs" / "first" / "file").write_text("")
    assert names_in(tmp_path / "runs" / "first") == ["file"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is cut off or damaged: "),
        (b'{"seed": 1, "data', "is cut off or damaged: "),
        (bytes(100), "is cut off or damaged: "),
        (b'{"data": "caf\xe9"}', "is cut off or damaged: "),
        (b"[1]", "holds a list, not an object."),
        (b"null", "holds a single value, not an object."),
    ],
)
def test_a_damaged_object_is_named(tmp_path, content, reason):
    (tmp_path / "run.json").write_bytes(content)
    with one_line_error(f"{str(tmp_path / 'run.json')!r} {reason}", " Remove it, or put a copy"):
        read_object(tmp_path / "run.json")
    with one_line_error(reason, ". Ask again."):
        read_object(tmp_path / "run.json", "Ask again.")


def test_an_object_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "run.json")
