"""Java's regular expressions for Rust's engine: what means the same in both is translated, all
else is refused by name (look-around, back-references, possessive quantifiers, `\\b`, classes of
classes, flags).

Where they differ and we translate: `\\d \\w \\s` are ASCII in Java; `.` ends at more line ends; `$`
also matches before a final line end, which only a test for a match can express. A pattern that can
match nothing at all is refused where matches are replaced or split at: the engines differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from superfs.chukonu.errors import UnsupportedError

_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " \\t\\n\\x0B\\x0C\\r"}
_LITERAL = {"t": "\\t", "n": "\\n", "r": "\\r", "f": "\\x0C", "e": "\\x1B", "a": "\\x07"}
_DOT = "[^\\n\\r\\u{85}\\u{2028}\\u{2029}]"
_END = "(?:\\r\\n|[\\n\\r\\u{85}\\u{2028}\\u{2029}])?\\z"
_SPECIAL = set("\\.+*?()|[]{}^$#&-~/")


@dataclass(frozen=True)
class Pattern:
    rust: str
    nullable: bool
    """It can match nothing."""
    anchored: bool
    """It has a `$`."""
    groups: int


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.place, self.groups, self.anchored = text, 0, 0, False

    def refuse(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"regular expression {self.text!r}: {what}")

    def peek(self) -> str:
        return self.text[self.place : self.place + 1]

    def take(self) -> str:
        found = self.peek()
        if not found:
            raise self.refuse("it ends too early")
        self.place += 1
        return found

    def alternatives(self) -> tuple[str, bool]:
        found = [self.sequence()]
        while self.peek() == "|":
            self.take()
            found.append(self.sequence())
        return "|".join(r for r, _ in found), any(n for _, n in found)

    def sequence(self) -> tuple[str, bool]:
        rust, nullable = "", True
        while self.peek() not in ("", "|", ")"):
            part, empty = self.repeated()
            rust, nullable = rust + part, nullable and empty
        return rust, nullable

    def repeated(self) -> tuple[str, bool]:
        rust, nullable = self.atom()
        many = ""
        if self.peek() in ("*", "+", "?"):
            many = self.take()
        elif self.peek() == "{":
            end = self.text.find("}", self.place)
            many = self.text[self.place : end + 1]
            low, _, high = many[1:-1].partition(",")
            if not low.isdecimal() or not (high.isdecimal() or not high) or not low.isascii():
                raise self.refuse("a brace that counts nothing")
            if int(low) > 1000 or (high and (int(high) > 1000 or int(high) < int(low))):
                raise self.refuse("a count beyond 1000")
            self.place = end + 1
            if int(low) == 0:
                nullable = True
        if not many:
            return rust, nullable
        if self.peek() == "+":
            raise self.refuse("a possessive quantifier")
        if self.peek() == "?":
            many += self.take()
        if self.peek() in ("*", "+", "?", "{") and self.peek():
            raise self.refuse("a quantifier of a quantifier")
        if many[0] in "*+{" and nullable:
            raise self.refuse("a repetition of what can be empty")
        return rust + many, nullable or many[0] in "*?"

    def atom(self) -> tuple[str, bool]:
        char = self.take()
        if char == "(":
            return self.group()
        if char == "[":
            return self.char_class(), False
        if char == ".":
            return _DOT, False
        if char == "^":
            return "\\A", True
        if char == "$":
            if self.place != len(self.text):
                raise self.refuse("$ elsewhere than at its end")
            self.anchored = True
            return _END, True
        if char in "*+?{":
            raise self.refuse("a quantifier of nothing")
        if char == "\\":
            kind, text = self.escape()
            return (
                f"[{text}]" if kind == "class" else f"[^{text}]" if kind == "not" else text
            ), False
        return _quoted(char), False

    def group(self) -> tuple[str, bool]:
        opening = "("
        if self.peek() == "?":
            if self.text[self.place : self.place + 2] != "?:":
                raise self.refuse("a group that is not (...) or (?:...)")
            self.place += 2
            opening = "(?:"
        else:
            self.groups += 1
        rust, nullable = self.alternatives()
        if self.take() != ")":
            raise self.refuse("a group without an end")
        return f"{opening}{rust})", nullable

    def escape(self) -> tuple[str, str]:
        char = self.take()
        if char in _CLASSES:
            return "class", _CLASSES[char]
        if char.lower() in _CLASSES:
            return "not", _CLASSES[char.lower()]
        if char in _LITERAL:
            return "char", _LITERAL[char]
        if char == "u" or char == "x":
            digits = self.text[self.place : self.place + (4 if char == "u" else 2)]
            if (
                len(digits) == (4 if char == "u" else 2)
                and all(d in "0123456789abcdefABCDEF" for d in digits)
                and not 0xD800 <= int(digits, 16) < 0xE000
            ):
                self.place += len(digits)
                return "char", f"\\u{{{digits}}}"
        if char.isascii() and char.isalnum():
            raise self.refuse(f"\\{char}")
        return "char", _quoted(char)

    def char_class(self) -> str:
        rust = "["
        if self.peek() == "^":
            rust += self.take()
        first = True
        while first or self.peek() != "]":
            char = self.take()
            if char in "[&]":
                raise self.refuse(f"{char} in a class without \\")
            if char == "\\":
                kind, text = self.escape()
                if kind == "not":
                    raise self.refuse("a negated class in a class")
                rust += text
                if (
                    kind == "class"
                    and self.peek() == "-"
                    and self.text[self.place + 1 :][:1] != "]"
                ):
                    raise self.refuse("a range from a class")
            elif char == "-" and not first and self.peek() != "]":
                if self.peek() == "\\" and self.text[self.place + 1 :][:1].lower() in _CLASSES:
                    raise self.refuse("a range to a class")
                rust += "-"
            else:
                rust += _quoted(char)
            first = False
        self.take()
        return rust + "]"


def _quoted(char: str) -> str:
    return "\\" + char if char in _SPECIAL else char


def translate(text: str) -> Pattern:
    parser = _Parser(text)
    rust, nullable = parser.alternatives()
    if parser.place != len(text):
        raise parser.refuse("a ) without its (")
    if parser.anchored and ("|" in text or not text.endswith("$")):
        raise parser.refuse("$ beside alternatives")
    return Pattern(rust, nullable, parser.anchored, parser.groups)


def consuming(text: str, what: str) -> Pattern:
    """For replacing, splitting and extracting: the matches themselves matter."""
    found = translate(text)
    if found.nullable:
        raise UnsupportedError(f"{what} with {text!r}, which can match nothing,")
    if found.anchored:
        raise UnsupportedError(f"{what} with $, in {text!r},")
    return found


def replacement(text: str, groups: int) -> str:
    """Java's `$1` and `\\x` for Rust's `${1}` and `$$`."""
    rust, place = "", 0
    while place < len(text):
        char = text[place]
        place += 1
        if char == "\\":
            if place == len(text):
                raise UnsupportedError(f"replacement {text!r}")
            rust += text[place].replace("$", "$$")
            place += 1
        elif char == "$":
            digit = text[place : place + 1]
            if not digit or digit not in "0123456789" or int(digit) > groups or groups > 9:
                raise UnsupportedError(f"replacement {text!r}")
            rust += f"${{{digit}}}"
            place += 1
        else:
            rust += char
    return rust


def like(pattern: str) -> str:
    """SQL's LIKE, with \\ before what stands for itself."""
    if any(ord(char) > 0xFFFF for char in pattern):
        raise UnsupportedError(f"LIKE pattern {pattern!r}")  # Spark takes them apart
    rust, place = "", 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "\\":
            following = pattern[place : place + 1]
            if following not in ("_", "%", "\\") or not following:
                raise UnsupportedError(f"LIKE pattern {pattern!r}")
            rust += _quoted(following)
            place += 1
        else:
            rust += {"_": "(?s:.)", "%": "(?s:.*)"}.get(char) or _quoted(char)
    return f"\\A{rust}\\z"
