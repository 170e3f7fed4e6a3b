"""Flags: types that say what they expect, and a parser that reports all wrong values in one go."""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence

from common.errors import BadInput


def value(expected: str, convert: Callable, test: Callable = lambda v: True) -> Callable:
    """A `type=` for add_argument: convert(text), for which test() must be true."""

    def read(text):
        try:
            result = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(expected) from None
        if not test(result):
            raise argparse.ArgumentTypeError(expected)
        return result

    return read


def one_of(names: Iterable[str]) -> dict:
    """add_argument(..., **one_of(names)): one of some names. A dict may still grow: a registry."""
    names = names if isinstance(names, dict) else list(names)
    return {
        "type": value(f"expected one of {', '.join(names)}", str, lambda v: v in names),
        "metavar": "{" + ",".join(names) + "}",
    }


def as_flags(flags: dict) -> list[str]:
    """{name: value} as a command line, sorted: true is a flag alone, false and None none, a list several values."""
    words = []
    for name, value in sorted(flags.items()):
        if value is not None and value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [f"--{name}", *(f"{v:.15g}" if isinstance(v, float) else str(v) for v in values)]
    return words


LARGEST = 3.4e38  # that float32 can hold
positive = value("expected a number above 0, up to 3.4e38", float, lambda v: 0 < v <= LARGEST)
not_negative = value("expected a number from 0 to 3.4e38", float, lambda v: 0 <= v <= LARGEST)
share = value("expected a number from 0 to 1", float, lambda v: 0 <= v <= 1)
open_share = value("expected a number above 0 and at most 1", float, lambda v: 0 < v <= 1)
inner_share = value("expected a number above 0 and below 1", float, lambda v: 0 < v < 1)
count = value("expected a whole number from 1 on", int, lambda v: v >= 1)
whole = value("expected a whole number from 0 on", int, lambda v: v >= 0)
name = value("expected a name, without slashes", str, lambda v: v.strip(". ") and not set(v) & set("/\\"))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help, where there are any; the description's lines as they were written."""

    def _get_help_string(self, action):
        has_none = action.default is None or action.default is False or action.default == []  # 0 is one
        return action.help if has_none else super()._get_help_string(action)


class CheckedParser(argparse.ArgumentParser):
    """An ArgumentParser that reports all wrong values in one go, and remembers which flags were given."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, exit_on_error=False, formatter_class=HelpFormatter, **settings)
        self.register("type", None, os.path.expanduser)  # text: the shell leaves the ~ of --flag=~/x as it is
        self._negative_number_matcher = re.compile(r"-(\d|\.|inf|nan)")  # argparse takes -1e-3 and -inf for flags

    def add_flags(self, groups: dict[str, dict[str, dict]]) -> "CheckedParser":
        """groups: {title of a group: {"--flag": what add_argument takes}}. Returns the parser."""
        for title, flags in groups.items():
            group = self.add_argument_group(title)
            for names, settings in flags.items():
                group.add_argument(*names.split(), **settings)
        return self

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """As argparse's, but BadInput has a message for each flag that is wrong.

        `given` in the result is the set of the flags that the user gave.
        """
        self._wrong, self._given = [], set()
        try:
            found, unknown = self.parse_known_args(args, namespace)
        except argparse.ArgumentError as problem:
            raise BadInput(*self._wrong, f"{problem.argument_name}: {problem.message}; see --help") from None
        for before, word in zip(["", *unknown], unknown, strict=False):
            if word.startswith("-") or not before.startswith("-"):  # else it is the value of an unknown flag
                flag = word.split("=")[0]
                close = difflib.get_close_matches(flag, self._option_string_actions, n=1)
                self._wrong.append(f"{flag}: no such flag; {f'did you mean {close[0]}?' if close else 'see --help'}")
        if self._wrong:
            raise BadInput(*self._wrong)
        found.given = self._given
        return found

    def error(self, message):
        raise BadInput(*self._wrong, message)

    def _get_values(self, action, texts):
        self._given.add(action.dest)
        return super()._get_values(action, texts)

    def _get_value(self, action, text):
        try:
            if not text.strip():
                raise argparse.ArgumentError(None, "is empty (a shell variable that is not set?); give a value")
            return super()._get_value(action, text)
        except argparse.ArgumentError as problem:
            named = action.option_strings[-1] if action.option_strings else action.dest
            self._wrong.append(f"{f'{named} {text}'.strip()}: {problem.message}")
