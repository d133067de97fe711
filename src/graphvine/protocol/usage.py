"""Parsers of command lines that tell what a mistyped option may have meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TypeVar

_Parsed = TypeVar("_Parsed")


class Parser(argparse.ArgumentParser):
    """As argparse's, but for what it does not know. All methods that parse print what is wrong and exit."""

    #: What may be given besides options, in words.
    wanted = ""

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            self.refuse(rest)
        return options

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        options, rest = self.parse_known_intermixed_args(args, namespace)
        if rest:
            self.refuse(rest)
        return options

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Say what is wrong with these words, and exit."""
        unknown = next((word for word in rest if word.startswith("-")), "")
        if not unknown:
            self.error(f"what is {rest[0]!r}? " + (f"Give {self.wanted}" if self.wanted else "See --help"))
        name = unknown.partition("=")[0]
        self.error(f"there is no option {name}{meant(name, self._option_string_actions)}")


class SubParser(Parser):
    """Of one command among several: says itself what it does not know, instead of whom it is part of."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.refuse(rest)
        return options, rest


def meant(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?", or nothing when none of the known names is near."""
    import difflib

    nearest = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def argument(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
    """The type of an argument: what ``parse`` finds wrong (a ValueError) is said in its own words."""

    def parsed(text: str) -> _Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed
