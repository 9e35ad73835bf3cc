"""ZIP archives from strangers: nothing is unpacked, every claim in them is checked."""

import itertools
import mmap
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

_LOCAL_HEADER = struct.Struct("<4s22xHH")


def mapped(path: Path) -> mmap.mmap:
    """A file as memory, read-only; an empty one is refused with a ValueError."""
    with open(path, "rb") as file:
        if hasattr(mmap, "MAP_POPULATE"):  # all pages at once are quicker than one after another
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Archive:
    """The members of a ZIP archive, as views of the file in memory.

    Members must be stored as they are: neither PyTorch nor Keras compresses, and what is not
    compressed cannot grow.

    Parameters
    ----------
    path : path
        The archive.

    Raises
    ------
    ValueError
        If it is damaged, or if a member is compressed, encrypted, a link, or named so that it
        would lie outside a folder that it is unpacked to.
    """

    def __init__(self, path: Path):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"it is no whole ZIP archive ({error}).") from error
        self.content = mapped(path)
        self._members = {}
        for member in members:
            name = PurePosixPath(member.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in member.orig_filename:
                raise ValueError(f"its member {member.filename!r} points outside of it.")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"its member {member.filename!r} is a symbolic link.")
            if member.filename in self._members:
                raise ValueError(f"its member {member.filename!r} is there twice.")
            self._members[member.filename] = member

    def names(self) -> list[str]:
        """The names of the members."""
        return list(self._members)

    def span(self, name: str) -> tuple[int, int]:
        """Where in `content` the bytes of a member begin, and how many there are."""
        if name not in self._members:
            raise ValueError(f"it lacks its member {name!r}.")
        member = self._members[name]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(
                f"its member {name!r} is compressed or encrypted; PyTorch and Keras store them "
                "as they are."
            )
        header = self.content[member.header_offset : member.header_offset + _LOCAL_HEADER.size]
        if len(header) == _LOCAL_HEADER.size:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            name_start = member.header_offset + _LOCAL_HEADER.size
            local_name = self.content[name_start : name_start + name_length]
            encoding = "utf-8" if member.flag_bits & 0x800 else "cp437"
            start = name_start + name_length + extra_length
            if (
                member.header_offset >= 0
                and signature == b"PK\3\4"
                and local_name == member.orig_filename.encode(encoding)
                and member.compress_size == member.file_size
                and start + member.file_size <= len(self.content)
            ):
                return start, member.file_size
        raise ValueError(f"its member {name!r} does not lie where the archive says.")

    def check(self, *names: str) -> None:
        """Compare the bytes of members with their checksums."""
        spans = [self.span(name) for name in names]
        ordered = sorted(spans)
        if any(sum(one) > other[0] for one, other in itertools.pairwise(ordered)):
            raise ValueError("some of its members lie upon each other.")
        content = memoryview(self.content)
        for name, (start, size) in zip(names, spans, strict=True):
            if zlib.crc32(content[start : start + size]) != self._members[name].CRC:
                raise ValueError(f"its member {name!r} is damaged: its checksum is wrong.")
