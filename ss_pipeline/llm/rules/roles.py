"""Which part of a requirement speaks of what: outcome, treatment, controls, instrument.

Works on the text alone, by the turns of phrase in cues.py; which columns the phrases mean is matching.py's business.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from ss_pipeline.llm.rules.cues import CHINESE, ENGLISH, Cues
from ss_pipeline.llm.rules.words import is_chinese

MAX_TEXT_CHARACTERS: Final = 4_000
MAX_SENTENCE_CHARACTERS: Final = 600
MAX_CONTROL_ITEMS: Final = 40

_MARKUP = re.compile(r"<[A-Za-z/!][^<>]{0,300}>|https?://\S+")
_PREFIX = re.compile(r"^(?P<prefix>[^:：]{3,160}?)[:：]\s*(?=\S)(?P<rest>.{4,})$")
_HELD = re.compile(r"(?:^|\s+)(?:(?:held |are |is )?(?:fixed|constant|equal)|等)$|等$", re.IGNORECASE)
_TAIL = re.compile(
    r"\s+(?:among|during|using|across|over the|in (?:the )?(?:us|u\.s\.|years?|\d{4})|for the years?|from \d{4}"
    r"|by how much)\b.*$|,\s.*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Roles:
    """The phrases of a requirement by role; None where no turn of phrase gave one.

    Args:
        either: Two variables of which either may be the outcome ("between A and B").
        context: What no role took, prefixes included.
    """

    outcome: str | None = None
    treatment: str | None = None
    either: tuple[str, str] | None = None
    controls: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    cluster: str | None = None
    prefix: str = ""
    context: str = ""


@dataclass
class _Found:
    phrases: dict[str, str] = field(default_factory=dict)
    controls: list[str] = field(default_factory=list)
    instruments: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def is_news(self, groups: dict[str, str | None]) -> bool:
        """Whether a relation adds something: a first one, or the one role that is missing."""
        if {"outcome", "treatment"} <= self.phrases.keys() or "a" in self.phrases:
            return False
        return any(value and value.strip() for value in groups.values())

    def offer(self, role: str, phrase: str | None) -> None:
        """Keeps the phrase if the role has none yet."""
        if phrase and phrase.strip():
            self.phrases.setdefault(role, phrase.strip())


def read_roles(requirement: str) -> Roles:
    """The roles in a requirement, in English or Chinese; deterministic, in time linear in the number of sentences."""
    text = plain_text(requirement)
    cues = CHINESE if is_chinese(text) else ENGLISH
    found = _Found()
    sentences = [part.strip()[:MAX_SENTENCE_CHARACTERS] for part in cues.sentence_end.split(text) if part.strip()]
    remaining = [_cut_lists(sentence, cues, found) for sentence in sentences]
    remaining = [_cut_stated(sentence, cues, found) for sentence in remaining]
    _relate(_divided(remaining, found), cues, found)
    found.rest.extend(remaining)
    return _roles(found, cues)


def plain_text(requirement: str) -> str:
    """The requirement without markup and addresses, cut to what the rules read."""
    return _MARKUP.sub(" ", requirement[:MAX_TEXT_CHARACTERS]).replace("\r", "\n")


def _cut_lists(sentence: str, cues: Cues, found: _Found) -> str:
    """The sentence without its clusters, instruments and controls, which are kept in `found`."""
    for pattern in cues.cluster:
        match = pattern.search(sentence)
        if match:
            found.offer("cluster", match["k"])
            sentence = _without(sentence, match)
    for pattern in cues.instrument:
        match = pattern.search(sentence)
        if match:
            found.offer("treatment", match.groupdict().get("t"))
            found.instruments.extend(_items(match["z"], cues))
            sentence = _without(sentence, match)
            break
    for pattern in cues.control:
        match = pattern.search(sentence)
        if match:
            found.controls.extend(_items(match["c"], cues))
            sentence = _without(sentence, match)
    return sentence


def _cut_stated(sentence: str, cues: Cues, found: _Found) -> str:
    for pattern in cues.stated:
        match = pattern.search(sentence)
        if match:
            found.offer("outcome", match.groupdict().get("o"))
            found.offer("treatment", match.groupdict().get("t"))
            sentence = _without(sentence, match)
    return sentence


def _divided(sentences: list[str], found: _Found) -> list[str]:
    """The sentences with what stands before a colon on its own, after what the colon introduces."""
    parts: list[str] = []
    for sentence in sentences:
        prefixed = _PREFIX.match(sentence)
        parts.extend([prefixed["rest"], prefixed["prefix"]] if prefixed else [sentence])
        found.prefixes.extend([prefixed["prefix"]] if prefixed else [])
    return [part for part in parts if part.strip()]


def _relate(parts: list[str], cues: Cues, found: _Found) -> None:
    """Outcome and treatment from the surest relation that holds anywhere; a later one may give only what is missing."""
    for pattern in cues.relation:
        for part in parts:
            match = pattern.search(part)
            groups = match.groupdict() if match else {}
            if found.is_news(groups):
                for role in ("a", "b", "outcome", "treatment"):
                    found.offer(role, groups.get(role if len(role) == 1 else role[0]))


def _roles(found: _Found, cues: Cues) -> Roles:
    trimmed = {role: _trimmed(phrase, cues) for role, phrase in found.phrases.items()}
    return Roles(
        outcome=trimmed.get("outcome"),
        treatment=trimmed.get("treatment"),
        either=(trimmed["a"], trimmed["b"]) if "a" in trimmed and "b" in trimmed else None,
        controls=tuple(found.controls[:MAX_CONTROL_ITEMS]),
        instruments=tuple(found.instruments[:MAX_CONTROL_ITEMS]),
        cluster=trimmed.get("cluster"),
        prefix=" ".join(found.prefixes),
        context=" ".join(found.rest),
    )


def _trimmed(phrase: str, cues: Cues) -> str:
    """The phrase without the words that only ask, and without where and when."""
    phrase = cues.filler.sub("", phrase)
    shorter = _TAIL.sub("", phrase)
    return shorter.strip() or phrase.strip()


def _items(listed: str, cues: Cues) -> list[str]:
    parts = (_HELD.sub("", part.strip(" .:：。")) for part in cues.item_end.split(listed))
    return [part for part in parts if part]


def _without(sentence: str, match: re.Match[str]) -> str:
    return f"{sentence[: match.start()]} {sentence[match.end() :]}".strip()
