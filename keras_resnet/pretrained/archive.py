"""Untrusted ZIP archives: read in place, with every size and offset checked."""

import itertools
import mmap
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

_LOCAL_HEADER = struct.Struct("<4s22xHH")


def mapped(path: Path) -> mmap.mmap:
    """Map a file into memory, read-only. Raises a ValueError if it is empty."""
    with open(path, "rb") as file:
        if hasattr(mmap, "MAP_POPULATE"):  # mapping all pages at once is faster
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Archive:
    """The members of a ZIP archive, as views of the memory-mapped file.

    Only uncompressed members are accepted: PyTorch and Keras do not compress them, and they cannot
    expand to more than the size of the file.

    Parameters
    ----------
    path : path
        The archive.

    Raises
    ------
    ValueError
        If the archive is damaged, or if a member is compressed, encrypted, a link, a duplicate, or
        has a path outside the archive.
    """

    def __init__(self, path: Path):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"the ZIP archive is incomplete or damaged ({error}).") from error
        self.content = mapped(path)
        self._members = {}
        for member in members:
            name = PurePosixPath(member.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in member.orig_filename:
                raise ValueError(
                    f"archive member {member.filename!r} has a path outside the archive."
                )
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"archive member {member.filename!r} is a symbolic link.")
            if member.filename in self._members:
                raise ValueError(f"archive member {member.filename!r} appears twice.")
            self._members[member.filename] = member

    def names(self) -> list[str]:
        """List the names of the members."""
        return list(self._members)

    def span(self, name: str) -> tuple[int, int]:
        """Return the offset of a member's bytes in `content`, and their number."""
        if name not in self._members:
            raise ValueError(f"archive member {name!r} is missing.")
        member = self._members[name]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(
                f"archive member {name!r} is compressed or encrypted; PyTorch and Keras write "
                "neither."
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
        raise ValueError(f"archive member {name!r} is not where the archive's directory says.")

    def check(self, *names: str) -> None:
        """Check members against their checksums, and that they do not overlap."""
        spans = [self.span(name) for name in names]
        ordered = sorted(spans)
        if any(sum(one) > other[0] for one, other in itertools.pairwise(ordered)):
            raise ValueError("some archive members overlap.")
        content = memoryview(self.content)
        for name, (start, size) in zip(names, spans, strict=True):
            if zlib.crc32(content[start : start + size]) != self._members[name].CRC:
                raise ValueError(f"archive member {name!r} is damaged: its checksum is wrong.")
