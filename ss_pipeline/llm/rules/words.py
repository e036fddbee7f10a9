"""Words: from text in English or Chinese, and from column names, to stems that can be compared.

What a word means for the draft (its role) is roles.py's business; which column it means is matching.py's.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from ss_pipeline.llm.rules.lexicon import (
    ABBREVIATIONS,
    CHINESE,
    GENERIC,
    NUMBER_WORDS,
    RELATED,
    SPELLINGS,
    STOPWORDS,
    SYNONYMS,
)

MAX_NAME_CHARACTERS: Final = 200
MAX_TERMS: Final = 24
"""A name or label is read this far: longer ones are prose, not names."""

_TOKEN = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?|\d+|[\u3400-\u9fff]+|[#%<>]")
_CAMEL = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|[^A-Za-z0-9]+"
)
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_PARTICLE = re.compile(r"\b(take|drop|start|follow)[- ](up|out)\b", re.IGNORECASE)
_SYMBOLS = {"#": "number", "%": "percent", "<": "under", ">": "above"}
_LONGEST_CHINESE = max(map(len, CHINESE))
_SHORTEST_PIECE = 3


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """The word without its English endings, lower case; numbers and Chinese are left as they are."""
    word = SPELLINGS.get(word, word)
    word = re.sub(r"is(e[ds]?|ing|ation)$", r"iz\1", word) if len(word) > 6 else word
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed", "ly"):
        if len(word) > len(ending) + 2 and word.endswith(ending) and re.search("[aeiouy]", word[: -len(ending)]):
            word = re.sub(r"([^aeiouls])\1$", r"\1", word[: -len(ending)])
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _stems(words: str) -> list[str]:
    return [stem(word) for word in words.split()]


def _stem_table(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {stem(word): tuple(_stems(words)) for word, words in table.items()}


STOP_STEMS: Final = frozenset(stem(word) for word in STOPWORDS)
GENERIC_STEMS: Final = frozenset(stem(word) for word in GENERIC)
SYNONYM_GROUP: Final = {stem(word): group for group, words in enumerate(SYNONYMS) for word in reversed(words)}
_GROUP_MEMBERS: Final = {number: tuple(map(stem, words)) for number, words in enumerate(SYNONYMS)}
RELATED_STEMS: Final = _stem_table(RELATED)
_WHOLE_WORDS: Final = frozenset(
    stem(word)
    for words in [*CHINESE.values(), *ABBREVIATIONS.values(), *(" ".join(group) for group in SYNONYMS)]
    for word in words.split()
    if len(word) > 3
)


def is_chinese(text: str) -> bool:
    """Whether Chinese characters carry the text: a fifth of its letters or more."""
    letters = sum(1 for character in text if character.isalpha())
    return letters > 0 and len(_CHINESE.findall(text)) * 5 >= letters


def has_chinese(text: str) -> bool:
    """Whether there is any Chinese character, so that letters among them are a name."""
    return bool(_CHINESE.search(text))


def text_terms(text: str) -> list[str]:
    """The stems of the words of a text that say something, in order; Chinese terms as their English words."""
    found: list[str] = []
    plain = _PARTICLE.sub(r"\1\2", unicodedata.normalize("NFKC", text))
    for token in _TOKEN.findall(plain):
        found.extend(_token_terms(token))
    return [term for term in found if term not in STOP_STEMS]


@lru_cache(maxsize=20_000)
def _token_terms(token: str) -> tuple[str, ...]:
    if _CHINESE.match(token):
        return tuple(term for word in _chinese_words(token) for term in _stems(word))
    word = _SYMBOLS.get(token) or re.sub(r"['’](s|re|t)?$", "", token.lower())
    return tuple(_stems(ABBREVIATIONS.get(word) or NUMBER_WORDS.get(word) or word))


def _chinese_words(run: str) -> list[str]:
    """English words of the longest dictionary entries; what is unknown stays as single characters."""
    words: list[str] = []
    position = 0
    while position < len(run):
        lengths = range(min(_LONGEST_CHINESE, len(run) - position), 0, -1)
        size = next((n for n in lengths if run[position : position + n] in CHINESE), 0)
        words.append(CHINESE[run[position : position + size]] if size else run[position])
        position += size or 1
    return words


def name_readings(name: str) -> list[tuple[str, ...]]:
    """The ways to read a column name: as one word, divided at case, digits and signs, and divided into known pieces."""
    name = name[:MAX_NAME_CHARACTERS]
    if _CHINESE.search(name):
        return [tuple(text_terms(name)[:MAX_TERMS])]
    parts = [part for part in _CAMEL.split(name) if part]
    divided = [term for part in parts for term in _token_terms(part)][:MAX_TERMS]
    pieces = [term for part in parts for piece in _pieces(part.lower()) for term in _token_terms(piece)][:MAX_TERMS]
    whole = (stem(name.lower()),) if len(parts) == 1 else ()
    readings: list[tuple[str, ...]] = [whole, _telling(divided), _telling(pieces)]
    return list(dict.fromkeys(reading for reading in readings if reading))


def _telling(terms: list[str]) -> tuple[str, ...]:
    """The terms without those that say nothing, unless there are no others."""
    return tuple(term for term in terms if term not in STOP_STEMS) or tuple(terms)


@lru_cache(maxsize=20_000)
def _pieces(word: str) -> tuple[str, ...]:
    """A run-together name such as `motheduc`, divided into known abbreviations and words; itself if that fails."""
    if len(word) < 5 or word in ABBREVIATIONS or stem(word) in _WHOLE_WORDS:
        return (word,)
    best: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]
    for end in range(1, len(word) + 1):
        options = [_with_unknown(best[end - 1], word[end - 1])]
        for start in range(max(0, end - 12), end - _SHORTEST_PIECE + 1):
            if _is_piece(word[start:end]):
                unknown, count, parts = best[start]
                options.append((unknown, count + 1, (*parts, word[start:end])))
        best.append(min(options))
    unknown, _, parts = best[-1]
    return parts if unknown * 2 <= len(word) else (word,)


def _is_piece(text: str) -> bool:
    return text in ABBREVIATIONS or (len(text) > 3 and stem(text) in _WHOLE_WORDS)


def _with_unknown(state: tuple[int, int, tuple[str, ...]], character: str) -> tuple[int, int, tuple[str, ...]]:
    """The state with one more character that no piece covers; a run of those is one part."""
    unknown, count, parts = state
    if parts and not _is_piece(parts[-1]):
        return unknown + 1, count, (*parts[:-1], parts[-1] + character)
    return unknown + 1, count + 1, (*parts, character)


@lru_cache(maxsize=20_000)
def other_words(said: str) -> tuple[str, ...]:
    """Words with another first letter that `likeness` may accept: synonyms, what it stands for, a year's end."""
    group = _GROUP_MEMBERS.get(SYNONYM_GROUP.get(said, -1), ())
    return (*group, *RELATED_STEMS.get(said, ()), *([said[2:]] if said.isdigit() and len(said) == 4 else []))


@lru_cache(maxsize=100_000)
def likeness(said: str, named: str) -> float:
    """How surely the word said in a requirement means the word a column carries, 0 to 1."""
    if said == named:
        return 1.0
    if said in SYNONYM_GROUP and SYNONYM_GROUP[said] == SYNONYM_GROUP.get(named):
        return 0.85
    if named in RELATED_STEMS.get(said, ()):
        return 0.65
    if said.isdigit() or named.isdigit():
        return 0.8 if len(said) == 4 and len(named) == 2 and said.endswith(named) else 0.0
    if not said or not named or said[0] != named[0]:
        return 0.0
    return _abbreviation_likeness(said, named)


def _abbreviation_likeness(said: str, named: str) -> float:
    shorter, longer = sorted((said, named), key=len)
    if len(shorter) < 3 or not shorter.isascii():
        return 0.0
    if longer.startswith(shorter):
        return 0.8 if len(shorter) >= 4 else 0.6
    if shorter != named or len(shorter) * 5 < len(longer) * 2 or not _is_subsequence(shorter, longer):
        return 0.0
    return 0.7 if not re.search("[aeiou]", shorter[1:]) else 0.5 if len(shorter) >= 4 else 0.0


def _is_subsequence(shorter: str, longer: str) -> bool:
    rest = iter(longer)
    return all(character in rest for character in shorter)
