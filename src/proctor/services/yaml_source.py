"""YAML as plain values that know their places, so that every mistake is told with its line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import yaml

from proctor.errors import ValidationFailed

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 20
# Aliases count each time they are used, so a few lines of them cannot become gigabytes.
MAX_VALUES: Final = 200_000
# Nobody reads more, and looking for what was meant takes its time.
MAX_MISTAKES: Final = 200

# Where a value is: keys of mappings and indexes of lists, from the top.
Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong. Line and column count from 1, None where no text is known; the top's path is empty."""

    line: int | None
    column: int | None
    path: str
    message: str

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line is not None else []
        return ": ".join([*where, *filter(None, [self.path]), self.message])


class ManifestInvalid(ValidationFailed):
    """The manifest has mistakes"""

    code = "manifest_invalid"

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = list(mistakes)
        some = f"{len(mistakes)} mistakes" + (" or more" if len(mistakes) >= MAX_MISTAKES else "")
        count = "a mistake" if len(mistakes) == 1 else some
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"The manifest has {count}; nothing was changed. Correct it and apply it again.{lines}")


_PLAIN_TAGS: Final = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "timestamp", "value")}
_NULL_TAG: Final = "tag:yaml.org,2002:null"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")


class _Loader(yaml.SafeLoader):
    """Gives up on nesting before Python's own stack does."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _too_much(f"more than {MAX_DEPTH} levels deep", self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class Source:
    """A YAML text as plain values, with the place of each; mappings' values are where their keys are."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._marks: dict[str, tuple[int, int]] = {"": (1, 1)}
        self._values = 0
        self.mistakes: list[Mistake] = []
        self.document: object = None

    def place(self, mistake: Mistake) -> Mistake:
        path = mistake.path
        while path not in self._marks:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        line, column = self._marks[path]
        return replace(mistake, line=line, column=column)

    def read(self, node: yaml.Node, loc: Loc = ()) -> object:
        self._values += 1
        if self._values > MAX_VALUES or len(loc) > MAX_DEPTH:
            raise _too_much("too large once its aliases are written out", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return self._read_list(node, loc)
        return self._read_scalar(node, loc)

    def _read_mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, object]:
        self._check_tag(node, loc, {"tag:yaml.org,2002:map"})
        read: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._blame_key(key, loc, "has a key that is not text")
            elif key.tag == _MERGE_TAG:
                self._blame_key(key, loc, "merges with `<<`, which is not supported; write the keys out")
            elif key.value in read:
                self._blame_key(key, (*loc, key.value), "is there twice; leave one out")
            else:
                self._mark(key, (*loc, key.value))
                read[key.value] = self.read(value, (*loc, key.value))
        return read

    def _read_list(self, node: yaml.SequenceNode, loc: Loc) -> list[object]:
        self._check_tag(node, loc, {"tag:yaml.org,2002:seq"})
        read = []
        for index, value in enumerate(node.value):
            self._mark(value, (*loc, index))
            read.append(self.read(value, (*loc, index)))
        return read

    def _read_scalar(self, node: yaml.Node, loc: Loc) -> str | None:
        # Scalars stay as they are written and the fields decide: YAML would make `version: 1.10` 1.1, and `YES` true.
        if node.tag == _NULL_TAG:
            return None
        self._check_tag(node, loc, _PLAIN_TAGS)
        return _VARIABLE.sub(lambda found: self._substitute(found, loc), node.value)

    def _substitute(self, found: re.Match[str], loc: Loc) -> str:
        name = found[1]
        if name is None:
            return "${"
        if not found[2] or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            self._blame(loc, "has a `${` without a variable's name and `}`; write `$${` for the text itself")
        elif name not in self._variables:
            escaped = f"`$${{{shorten(name)}}}`"
            self._blame(loc, f"needs the variable {shorten(name)}; set it, or write {escaped} for the text itself")
        return self._variables.get(name, "")

    def _check_tag(self, node: yaml.Node, loc: Loc, allowed: set[str]) -> None:
        if node.tag not in allowed:
            self._blame(loc, f"has the tag `{shorten(node.tag)}`; tags are not used here")

    def _blame(self, loc: Loc, message: str) -> None:
        self.mistakes.append(self.place(Mistake(None, None, path_of(loc), message)))

    def _blame_key(self, key: yaml.Node, loc: Loc, message: str) -> None:
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        self.mistakes.append(Mistake(line, column, path_of(loc), message))

    def _mark(self, node: yaml.Node, loc: Loc) -> None:
        self._marks[path_of(loc)] = (node.start_mark.line + 1, node.start_mark.column + 1)


def read_source(text: str, variables: Mapping[str, str]) -> Source:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise ManifestInvalid([Mistake(1, 1, "", f"is {size:,} bytes, and may be {MAX_BYTES:,}; split it by project")])
    source = Source(variables)
    try:
        node = _compose(text)
        if node is not None:
            source.document = source.read(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ManifestInvalid([Mistake(line, column, "", f"cannot be read as YAML: {error.problem}")]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ManifestInvalid([Mistake(line, 1, "", "cannot be read as YAML: a control character")]) from None
    return source


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:
        # PyYAML lets Python's own errors out, as for "\UFFFFFFFF".
        raise yaml.scanner.ScannerError(None, None, str(error), loader.get_mark()) from None
    finally:
        loader.dispose()


def _too_much(what: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, f"it is {what}", mark)


def path_of(loc: Loc) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return "".join(parts).removeprefix(".")


def shorten(word: str) -> str:
    # JSON may hold halves of surrogate pairs, which no answer can carry.
    word = word.encode("utf-8", "replace").decode()
    return word if len(word) <= 60 else word[:59] + "…"
