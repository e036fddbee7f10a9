"""What a disk may hold after a power cut: every change that was not synced yet is there, missing, or there in part.

A log of system calls (strace) is read as changes of names, changes of content, and syncs. A change of names is durable
once its folder was synced, a change of content once its file was; until then a cut may keep any of them and lose any
other. That is more than one file system does, and all that POSIX promises. The idea is that of ALICE (OSDI '14).
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Final, TypeAlias

ACKNOWLEDGED: Final = b"acknowledged"
"""What the traced process writes to its pipe once the operation has returned."""
TRACED: Final = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2", "link",
    "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
MOST_STATES: Final = 2**10
"""Of one moment; where there may be more, so many are drawn, always the same."""

Tree: TypeAlias = dict[str, bytes | None]
"""Relative paths and what is there: the bytes of a file, or None for a folder."""


@dataclass(frozen=True)
class Named:
    """Names given (to an inode) or taken away (None), in one step: `(folder, name, inode)`."""

    entries: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True)
class Written:
    """Bytes written into a file."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file cut to a size."""

    inode: int
    size: int


@dataclass(frozen=True)
class Synced:
    """A file's content, or a folder's names, made durable."""

    inode: int


@dataclass(frozen=True)
class Acknowledged:
    """The operation has returned."""


Effect: TypeAlias = Named | Written | Cut
Step: TypeAlias = Effect | Synced | Acknowledged


@dataclass(frozen=True)
class State:
    """What a disk may hold, and whether the operation may have been acknowledged by then."""

    tree: Tree
    acknowledged: bool


class Disk:
    """Inodes of files and folders; the folder 0 is the root."""

    def __init__(self) -> None:
        self.folders: dict[int, dict[str, int]] = {0: {}}
        self.files: dict[int, bytes] = {}

    @classmethod
    def of(cls, root: Path) -> "Disk":
        """A disk that holds what is below a folder, all of it durable."""
        disk = cls()
        for path in sorted(root.rglob("*")):
            inode = disk.new_inode()
            if path.is_dir():
                disk.folders[inode] = {}
            else:
                disk.files[inode] = path.read_bytes()
            folder, name = disk.place(str(path.relative_to(root)))
            disk.folders[folder][name] = inode
        return disk

    def copy(self) -> "Disk":
        """Another disk that holds the same."""
        disk = Disk()
        disk.folders = {inode: dict(names) for inode, names in self.folders.items()}
        disk.files = dict(self.files)
        return disk

    def new_inode(self) -> int:
        """A number that no inode has yet."""
        return len(self.folders) + len(self.files)

    def place(self, path: str) -> tuple[int, str]:
        """The folder of a path, which must be there, and the name in it."""
        *above, name = Path(path).parts
        folder = 0
        for part in above:
            folder = self.folders[folder][part]
        return folder, name

    def inode(self, path: str) -> int | None:
        """What a path names."""
        if path == ".":
            return 0
        folder, name = self.place(path)
        return self.folders[folder].get(name)

    def apply(self, effect: Effect) -> None:
        """Makes a change."""
        if isinstance(effect, Named):
            for folder, name, inode in effect.entries:
                self.folders[folder].pop(name, None)
                if inode is not None:
                    self.folders[folder][name] = inode
        elif isinstance(effect, Cut):
            self.files[effect.inode] = self.files[effect.inode][: effect.size].ljust(effect.size, b"\0")
        else:
            before = self.files[effect.inode].ljust(effect.offset, b"\0")
            end = effect.offset + len(effect.data)
            self.files[effect.inode] = before[: effect.offset] + effect.data + before[end:]

    def tree(self) -> Tree:
        """What can be reached from the root."""
        return dict(self._below(0, ""))

    def _below(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in sorted(self.folders[folder].items()):
            yield prefix + name, self.files.get(inode)
            if inode in self.folders:
                yield from self._below(inode, f"{prefix}{name}/")


# --- reading the log -------------------------------------------------------------------------------------------------

_CALL: Final = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class LogReader:
    """Reads the system calls of one process as steps on a disk.

    Args:
        root: The folder that is the disk's root; calls elsewhere are left out.
        disk: What it holds at the beginning. It stays so, but gets the inodes that are made later, empty and nameless.
        ignored: Names of files that do not count.
    """

    def __init__(self, root: Path, disk: Disk, *, ignored: re.Pattern[str]) -> None:
        self._root = root
        self._before = disk
        self._disk = disk.copy()
        self._ignored = ignored
        self._open: dict[int, tuple[int, int]] = {}

    def steps(self, log: str) -> list[Step]:
        """The steps of a whole log."""
        steps: list[Step] = []
        for line in log.splitlines():
            call = _CALL.match(line)
            if call and int(call[3]) >= 0:
                for step in self._of_call(call[1], call[2], int(call[3])):
                    if isinstance(step, Effect):
                        self._disk.apply(step)
                    steps.append(step)
        return steps

    def _of_call(self, name: str, arguments: str, result: int) -> Iterator[Step]:
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        if name == "openat":
            yield from self._opened(texts[0], arguments, result)
        elif name in {"write", "pwrite64", "fsync", "fdatasync", "ftruncate"}:
            if texts == [ACKNOWLEDGED]:
                yield Acknowledged()
            yield from self._on_open_file(name, arguments, texts, result)
        else:
            yield from self._on_names(name, [self._relative(text) for text in texts])

    def _opened(self, text: bytes, arguments: str, descriptor: int) -> Iterator[Step]:
        path = self._relative(text)
        self._open.pop(descriptor, None)
        if path is None:
            return
        inode = self._disk.inode(path)
        if inode is None:
            inode = self._disk.new_inode()
            self._disk.files[inode] = self._before.files[inode] = b""
            yield Named(((*self._disk.place(path), inode),))
        elif "O_TRUNC" in arguments:
            yield Cut(inode, 0)
        self._open[descriptor] = (inode, 0)

    def _on_open_file(self, name: str, arguments: str, texts: list[bytes], result: int) -> Iterator[Step]:
        descriptor = int(arguments.partition("<")[0].partition(",")[0])
        if descriptor not in self._open:
            return
        inode, position = self._open[descriptor]
        last = int(arguments.rpartition(" ")[2]) if name in {"pwrite64", "ftruncate"} else 0
        if name == "write":
            yield Written(inode, position, texts[0][:result])
            self._open[descriptor] = (inode, position + result)
        elif name == "pwrite64":
            yield Written(inode, last, texts[0][:result])
        elif name == "ftruncate":
            yield Cut(inode, last)
        else:
            yield Synced(inode)

    def _on_names(self, name: str, paths: Sequence[str | None]) -> Iterator[Step]:
        if None in paths:
            return
        places = [self._disk.place(path) for path in paths if path is not None]
        inode = self._disk.inode(str(paths[0]))
        if name.startswith("mkdir"):
            inode = self._disk.new_inode()
            self._disk.folders[inode], self._before.folders[inode] = {}, {}
            yield Named(((*places[0], inode),))
        elif name.startswith("link"):
            yield Named(((*places[1], inode),))
        elif name.startswith("rename"):
            yield Named(((*places[0], None), (*places[1], inode)))
        else:
            yield Named(((*places[0], None),))

    def _relative(self, text: bytes) -> str | None:
        """A path relative to the root; None where it is elsewhere, or does not count."""
        path = Path(text.decode("utf-8", "surrogateescape"))
        if not path.is_relative_to(self._root) or self._ignored.search(path.name):
            return None
        return str(path.relative_to(self._root))


# --- what a cut may leave --------------------------------------------------------------------------------------------


def states(before: Disk, steps: Sequence[Step]) -> list[State]:
    """Every state, once each, that a cut before, between or after the steps may leave."""
    found: dict[tuple[tuple[str, bytes | None], ...], State] = {}
    for end in range(len(steps) + 1):
        acknowledged = Acknowledged() in steps[:end]
        for tree in _trees(before, steps[:end]):
            key = tuple(sorted(tree.items()))
            earlier = found.get(key)
            found[key] = State(tree, acknowledged or (earlier is not None and earlier.acknowledged))
    return list(found.values())


def faults_of_order(before: Disk, steps: Sequence[Step], *, uncounted: re.Pattern[str]) -> list[str]:
    """What is named before its content is durable, and what is acknowledged before it is durable.

    Args:
        uncounted: Names that need not last: of locks and unfinished files.
    """
    names = {inode: name for folder in before.folders.values() for name, inode in folder.items()}
    faults = []
    for end, step in enumerate(steps):
        pending = [steps[index] for index in _pending(steps[:end])]
        contents = {effect.inode for effect in pending if isinstance(effect, Written | Cut)}
        if isinstance(step, Named):
            named = [(name, inode) for _, name, inode in step.entries if not uncounted.search(name)]
            faults += [f"{name} was named before its content was synced" for name, inode in named if inode in contents]
            names.update({inode: name for name, inode in named if inode is not None})
        if isinstance(step, Acknowledged):
            lost = {names[inode] for inode in contents if inode in names}
            lost |= {name for effect in pending if isinstance(effect, Named) for _, name, _ in effect.entries}
            faults += [f"{name} was acknowledged before it was synced" for name in lost if not uncounted.search(name)]
    return faults


def _pending(steps: Sequence[Step]) -> list[int]:
    """Where in the steps the changes are that were not synced since."""
    return [
        index for index, step in enumerate(steps) if isinstance(step, Effect) and not _is_synced(step, steps[index:])
    ]


def _is_synced(effect: Effect, later: Sequence[Step]) -> bool:
    wanted = {folder for folder, *_ in effect.entries} if isinstance(effect, Named) else {effect.inode}
    return wanted <= {step.inode for step in later if isinstance(step, Synced)}


def _trees(before: Disk, steps: Sequence[Step]) -> Iterator[Tree]:
    pending = set(_pending(steps))
    effects = [(index, step) for index, step in enumerate(steps) if isinstance(step, Effect)]
    choices = [_variants(effect) if index in pending else (effect,) for index, effect in effects]
    for kept in _combinations(choices):
        disk = before.copy()
        for effect in kept:
            if effect is not None:
                disk.apply(effect)
        yield disk.tree()


def _variants(effect: Effect) -> Sequence[Effect | None]:
    """What may be left of a change that is not durable: nothing, all, a half, or the length without the content."""
    if not isinstance(effect, Written):
        return None, effect
    half = Written(effect.inode, effect.offset, effect.data[: len(effect.data) // 2])
    return None, effect, half, Written(effect.inode, effect.offset, bytes(len(effect.data)))


def _combinations(choices: Sequence[Sequence[Effect | None]]) -> Iterator[Sequence[Effect | None]]:
    if prod(len(choice) for choice in choices) <= MOST_STATES:
        yield from product(*choices)
        return
    dice = random.Random(1)
    for _ in range(MOST_STATES):
        yield [dice.choice(choice) for choice in choices]
