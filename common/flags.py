"""Flags: types that leave bad values to be reported together, and the parser that does so."""

import argparse
import difflib
import os
import re
import sys

from common.errors import BadInput, Problems


class Wrong:
    """What a flag's type returns for a value it cannot read; CheckedParser turns it into a message."""

    def __init__(self, text, expected):
        self.text, self.expected = text, expected


def value(expected, convert, test=lambda v: True):
    """A `type=` for add_argument that leaves bad values to be reported together, after parsing."""

    def read(text):
        try:
            result = convert(text)
            return result if test(result) else Wrong(text, expected)
        except ValueError:
            return Wrong(text, expected)

    return read


def one_of(names):
    """add_argument(..., **one_of(names)): a choice, reported together with the other mistakes."""
    names = list(names)
    return {
        "type": value(f"expected one of {', '.join(names)}", str, names.__contains__),
        "metavar": "{" + ",".join(names) + "}",
    }


LARGEST = 3.4e38  # that float32 can hold
positive = value("expected a number above 0, up to 3.4e38", float, lambda v: 0 < v <= LARGEST)
not_negative = value("expected a number from 0 to 3.4e38", float, lambda v: 0 <= v <= LARGEST)
share = value("expected a number from 0 to 1", float, lambda v: 0 <= v <= 1)
open_share = value("expected a number above 0 and at most 1", float, lambda v: 0 < v <= 1)
count = value("expected a whole number from 1 on", int, lambda v: v >= 1)
name = value("expected a name, without slashes", str, lambda v: v.strip(". ") and not set(v) & set("/\\"))
whole = value("expected a whole number from 0 on", int, lambda v: v >= 0)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help, where there are any; the description's lines as they were written."""

    def _get_help_string(self, action):
        return super()._get_help_string(action) if action.default not in (None, False, []) else action.help


class CheckedParser(argparse.ArgumentParser):
    """An ArgumentParser that finds all mistakes before it speaks, and remembers which flags were given."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, exit_on_error=False, formatter_class=HelpFormatter, **settings)
        self.register("type", None, os.path.expanduser)  # text: the shell leaves the ~ of --flag=~/x as it is
        # argparse takes -1e-3 and -inf for flags: read as values, they are reported with the other mistakes
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-(inf|nan)$", re.IGNORECASE)

    def error(self, message):
        raise BadInput(message)

    def parse_collecting(self, argv=None):
        """(args, Problems): values that could not be read are in Problems and have their default in args.

        args.given is the set of the flags that the user gave, by their names in args.
        """
        problems, absent = Problems(self), object()
        dests = [action.dest for action in self._actions if action.dest != "help"]
        args, unknown = self._parse_known(argv, dict.fromkeys(dests, absent), problems)
        args.given = {dest for dest in dests if getattr(args, dest) is not absent}
        for dest in dests:
            found = getattr(args, dest)
            wrong = [self._mistake(dest, v) for v in (found if isinstance(found, list) else [found])]
            for message in filter(None, wrong):
                problems.add(message, dest)
            if any(wrong) or found is absent:
                setattr(args, dest, self.get_default(dest))
        for before, name in zip([""] + unknown, unknown, strict=False):
            if name.startswith("-") or not before.startswith("-"):  # else it is the value of what is unknown
                problems.add(f"{name.split('=')[0]}: there is no such flag; {self._meant(name.split('=')[0])}")
        return args, problems

    def _mistake(self, dest, found):
        """What is wrong with one value of a flag, or None."""
        text = found.text if isinstance(found, Wrong) else found
        action = next(action for action in self._actions if action.dest == dest)
        named = f"--{dest}" if action.option_strings else dest
        if isinstance(text, str) and not text.strip():
            return f"{named}: is empty (a shell variable that is not set?); give a value, or leave it out"
        return f"{named} {text}: {found.expected}" if isinstance(found, Wrong) else None

    def _meant(self, name):
        close = difflib.get_close_matches(name, self._option_string_actions, n=1)
        return f"did you mean {close[0]}?" if close else "--help lists them"

    def _parse_known(self, argv, start, problems):
        """parse_known_args from the values of `start`; flags that argparse itself stops at are left out in turn."""
        argv = list(sys.argv[1:] if argv is None else argv)
        while True:
            try:
                return self.parse_known_args(argv, argparse.Namespace(**start))
            except argparse.ArgumentError as found:
                names = (found.argument_name or "").split("/")
                left = [word for word in argv if word.split("=")[0] not in names]
                if left == argv:
                    raise BadInput(str(found)) from None
                problems.add(f"{found.argument_name}: {found.message}; --help says what it takes")
                problems.broken |= {name.lstrip("-") for name in names}
                argv = left

    def expected(self, dest, found):
        """What a flag's value should have been, where `found`, from a file, cannot have been one; else None."""
        action = next((action for action in self._actions if action.dest == dest), None)
        if action is None or found == action.default:
            return None
        if action.nargs == 0:
            return None if isinstance(found, bool) else "expected true or false"
        values = found if action.nargs and isinstance(found, list) and found else [found]
        if action.type is None or any(isinstance(v, bool | None) for v in values):
            return None if all(isinstance(v, str) for v in values) else "expected text"
        read = [action.type(str(v)) for v in values]
        return next((v.expected for v in read if isinstance(v, Wrong)), None)

    def parse_args(self, args=None, namespace=None):
        """As argparse's, for callers without a run_script around them: mistakes on standard error, exit 2."""
        try:
            parsed, problems = self.parse_collecting(args)
            problems.stop_if_any()
        except BadInput as found:
            print(*(f"error: {m}" for m in found.messages), sep="\n", file=sys.stderr)
            sys.exit(2)
        return parsed
