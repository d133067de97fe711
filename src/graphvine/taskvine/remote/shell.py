"""Command lines that need no shell: one program and its arguments, as any shell would read them.

Half of what a short command costs is the shell that reads its line. What is taken apart here is only what
every shell takes apart in the same way: words of harmless characters, and quoted ones in which nothing stands
for anything else. All else is a shell's, as are its own words (keywords, built-in commands). When a program
cannot be begun, the shell is asked after all, so that it is the one to say why, and with which exit code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache

SHELL = "/bin/sh"
#: Shells of which we know that they look for programs as we do (that of busybox has its own).
_KNOWN = ("dash", "bash")
_BLANKS = re.compile(r"[ \t]+")
_PROGRAM = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*\Z")
#: A word: harmless characters, '...' and "..." one after the other.
_WORD = re.compile(r"""(?:[A-Za-z0-9_./:,+@%=-]+|'[^'\0]*'|"[^"$`\\\0]*")+""")
_PART = re.compile(r"""'([^']*)'|"([^"]*)"|([^'"]+)""")
#: What a shell does itself, whatever program has the same name: POSIX, dash and bash.
_OWN = """. : [ alias bg bind break builtin caller case cd chdir command compgen complete compopt continue
    coproc declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for
    function getopts hash help history if in jobs kill let local logout mapfile popd printf pushd pwd read
    readarray readonly return select set shift shopt source suspend test then time times trap true type
    typeset ulimit umask unalias unset until wait while"""
_OWN_WORDS = frozenset(_OWN.split())
#: ... but without arguments, these do what the programs of that name do.
_SAME = frozenset(("true", "false"))
#: So many lines and programs are remembered: tasks that run the same ones come one after the other.
_REMEMBERED = 64


@lru_cache(_REMEMBERED)
def words_of(line: str) -> tuple[str, ...]:
    """The program and arguments of a line that needs no shell; () for one that does."""
    line = line.strip(" \t\n")
    words: list[str] = []
    position = 0
    while position < len(line):
        found = _WORD.match(line, position)
        if found is None:
            return ()
        words.append(_unquoted(found[0]))
        blanks = _BLANKS.match(line, found.end())
        if blanks is None and found.end() < len(line):
            return ()
        position = blanks.end() if blanks is not None else len(line)
    # A quoted first word would be no keyword, and is nothing that anybody writes.
    if not words or not _PROGRAM.match(line.partition(" ")[0].partition("\t")[0]):
        return ()
    is_own = words[0] in _OWN_WORDS and not (words[0] in _SAME and len(words) == 1)
    return () if is_own else tuple(words)


def _unquoted(word: str) -> str:
    if "'" not in word and '"' not in word:
        return word
    return "".join(single or double or plain for single, double, plain in _PART.findall(word))


def program_of(word: str, variables: Mapping[str, str]) -> str:
    """The path of the program that a shell with these variables would run; "" where it must say itself."""
    # A shell may find a function of that name among them, which has a name of its own there.
    if not _is_known() or "\0BASH_FUNC_" in "\0" + "\0".join(variables):
        return ""
    if "/" in word:
        return word
    for path in _candidates(word, variables.get("PATH", "")):
        # Asked for every directory of PATH, and of most of them in vain: "no" is the cheaper answer of this.
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


@lru_cache(_REMEMBERED)
def _candidates(word: str, path: str) -> tuple[str, ...]:
    """Where a program may lie: up to the first directory that is not the same from everywhere."""
    found = []
    for directory in path.split(":"):
        if not directory.startswith("/"):
            break
        found.append(f"{directory}/{word}")
    return tuple(found)


def arguments_of(line: str, variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """What is to be run for a line, by the shell or without it: the path, and the arguments."""
    words = words_of(line)
    path = program_of(words[0], variables) if words else ""
    return (path, words) if path else shell_for(line)


def shell_for(line: str) -> tuple[str, tuple[str, ...]]:
    return SHELL, (SHELL, "-c", line)


_known: list[bool] = []


def _is_known() -> bool:
    if not _known:
        _known.append(os.path.basename(os.path.realpath(SHELL)) in _KNOWN)
    return _known[0]
