"""Secrets and personal data out of what is sent to a model or written beside a call; placeholders stand in for them.

What lives here: the shapes, and a redactor that remembers what stood where. What does not: which text is redacted (all
of a prompt: prompts/) and which placeholders are put back (names of columns only: drafter.py).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_STARTS: Final = r"(?<![A-Za-z0-9_])"
_ENDS: Final = r"(?![A-Za-z0-9_])"
_ID_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECK_DIGITS: Final = "10X98765432"


@dataclass(frozen=True)
class Shape:
    """What one kind of secret looks like.

    Args:
        kind: The placeholder's word: `[EMAIL_1]`.
        pattern: Of the whole; where it has a group `secret`, only that is replaced.
        holds: Whether a match is one, where the pattern alone is not enough.
    """

    kind: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = bool


def _is_identity_number(text: str) -> bool:
    """Whether the check digit of a Chinese identity number fits (GB 11643-1999)."""
    digits = [int(digit) for digit in text[:17]]
    total = sum(digit * weight for digit, weight in zip(digits, _ID_WEIGHTS, strict=True))
    return text[17].upper() == _ID_CHECK_DIGITS[total % 11]


def _is_key(text: str) -> bool:
    """Whether it looks made by chance: letters, digits, and a long run of them (`sk-learn-based` has none)."""
    run = max(map(len, re.split(r"[-_]", text)))
    return run >= 12 and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def _has_phone_digits(text: str) -> bool:
    return 9 <= sum(map(str.isdigit, text)) <= 15


def _shape(kind: str, pattern: str, *, holds: Callable[[str], bool] = bool, flags: int = 0) -> Shape:
    return Shape(kind, re.compile(pattern, flags | re.ASCII), holds)


SHAPES: Final = (
    _shape(
        "PRIVATE_KEY",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)",
        flags=re.DOTALL,
    ),
    _shape("TOKEN", rf"{_STARTS}eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}(?:\.[A-Za-z0-9_-]*)?"),
    _shape("PASSWORD", r"(?<=://)[^\s/@:'\"]{0,200}:(?P<secret>[^\s/@'\"]{1,200})(?=@)"),
    _shape("CREDENTIAL", r"(?<=://)(?P<secret>[^\s/@:'\"\[]{1,200})(?=@)"),
    _shape(
        "PASSWORD", r"(?:\b(?:password|passwd|pwd)\s*=|密码\s*[:：=])\s*(?P<secret>[^\s;,'\"\[]{4,200})", flags=re.I
    ),
    _shape("COOKIE", r"\b(?:set-)?cookie:\s*(?P<secret>[^\s=;]{1,80}=[^\r\n]{1,4000})", flags=re.I),
    _shape("TOKEN", r"\bbearer\s+(?P<secret>[A-Za-z0-9._~+/=-]{16,})", flags=re.I, holds=_is_key),
    _shape("API_KEY", rf"{_STARTS}ssp_[A-Za-z0-9]{{1,40}}_[A-Za-z0-9_-]{{20,}}"),
    _shape("API_KEY", rf"{_STARTS}sk-[A-Za-z0-9_-]{{16,}}", holds=_is_key),
    _shape("API_KEY", rf"{_STARTS}(?:AKIA|ASIA)[A-Z0-9]{{16}}{_ENDS}"),
    _shape("API_KEY", rf"{_STARTS}whsec_[A-Za-z0-9+/=_-]{{16,}}"),
    _shape(
        "API_KEY", rf"{_STARTS}(?:gh[opsru]_[A-Za-z0-9]{{36}}|xox[abprs]-[A-Za-z0-9-]{{20,}}|AIza[A-Za-z0-9_-]{{35}})"
    ),
    _shape("EMAIL", r"(?:[A-Za-z0-9._%+-]{1,64}|[一-鿿]{1,8})@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"),
    _shape("ID_NUMBER", rf"{_STARTS}[1-9]\d{{16}}[0-9Xx]{_ENDS}", holds=_is_identity_number),
    _shape("PHONE", rf"(?<![\w+])\+\d[\d ().-]{{7,22}}\d{_ENDS}", holds=_has_phone_digits),
    _shape("PHONE", rf"{_STARTS}\(?[2-9]\d{{2}}\)?[ .-][2-9]\d{{2}}[.-]\d{{4}}{_ENDS}"),
    _shape("PHONE", rf"{_STARTS}1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_ENDS}"),
    _shape("PHONE", rf"{_STARTS}0\d{{2,3}}-\d{{7,8}}{_ENDS}"),
)
"""In this order: what holds others (a key block, a DSN) goes first."""


class Redactor:
    """Redacts the texts of one request; the same secret gets the same placeholder in all of them."""

    def __init__(self) -> None:
        self._placeholders: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def redact(self, text: str) -> str:
        """The text with a placeholder, such as `[EMAIL_1]`, for each secret."""
        for shape in SHAPES:
            text = self._without(shape, text)
        return text

    def restore(self, text: str) -> str:
        """The text with what the placeholders stand for."""
        for secret, placeholder in self._placeholders.items():
            text = text.replace(placeholder, secret)
        return text

    def _without(self, shape: Shape, text: str) -> str:
        group = "secret" if "secret" in shape.pattern.groupindex else 0

        def replaced(match: re.Match[str]) -> str:
            whole, secret = match[0], match[group]
            if not shape.holds(secret):
                return whole
            start = match.start(group) - match.start()
            return whole[:start] + self._placeholder(secret, shape.kind, text) + whole[start + len(secret) :]

        return shape.pattern.sub(replaced, text)

    def _placeholder(self, secret: str, kind: str, text: str) -> str:
        if secret not in self._placeholders:
            count = self._counts.get(kind, 0) + 1
            while f"[{kind}_{count}]" in text:  # the text has such words of its own
                count += 1
            self._counts[kind] = count
            self._placeholders[secret] = f"[{kind}_{count}]"
        return self._placeholders[secret]


def redacted(text: str) -> str:
    """One text, for a message or a log line: nothing is kept to put back."""
    return Redactor().redact(text)
