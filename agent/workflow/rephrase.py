"""An optional language model may put an explanation in other words; off unless one is configured.

Only sentences that the explanation itself consists of are sent, and of those only kinds that name
no feature, no person and no case. What comes back is plain text, marked as a model's, shown beside
the deterministic text and never stored in its place. It is refused, and the deterministic text
stands alone, when a number in it does not occur in the source, when it leaves out the probability
or the suggestion, or when it says what the source does not. The check is of numbers and words, not
of meaning: a model may still set a right number in a wrong place, which is why the mark stays.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from agent.workflow.errors import WorkflowError
from agent.workflow.state import RESULTS, Explanation, Record
from agent.workflow.told import class_words
from carbon.errors import IntensityError
from carbon.intensity.secret import LOOPBACK, Secret, require_private

if TYPE_CHECKING:
    import requests

SENT = (
    "Probability of ", "The tokens disagree", "Each token alone:", "At the ",
    "What each modality and its bridges add", "Transfers run:", "Available but not processed:",
    "The case lacks:", "Left out as unreliable:", "Waited for cleaner electricity", "Energy:",
    "Stopped by policy", "The last choice was", "It would have been", "No tested value",
    "Patients like this one in validation", "The suggestion would have been right",
    "Research use only",
)  # fmt: skip
"""How sentences begin that may be sent; any other (cautions, requests, limits) stays here."""
INSTRUCTION = (
    "You put a report's sentences in other words for a clinician. Use only what they say. Keep "
    "every number with its sign and unit exactly as written, write none as a word, and add none. "
    "Keep the suggestion and the probability. Give no advice, no link, no list, no markup: plain "
    "sentences, no more than the report has."
)
CHUNK_BYTES = 16_384
NUMBER = re.compile(r"(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
PERCENT = re.compile(r"\s*(?:%|percent\b|per cent\b)")
MIXED = re.compile(r"[A-Za-z_]\w*[0-9]\w*")
SPELLED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|"
    r"fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|half|halves|thirds?|"
    r"quarters?|twice|double|triple|dozen)\b",
    re.IGNORECASE,
)
ADVICE = re.compile(
    r"\b(?:treat|therap|chemo|radiother|immunother|surg|dos(?:e|age|ing)|drug|prescri|administer|"
    r"biops)\w*",
    re.IGNORECASE,
)
DENIAL = re.compile(r"\b(?:not|never|no|none|nor|neither|nobody|cannot)\b|n't\b", re.IGNORECASE)
MARKUP = re.compile(r"<[A-Za-z/!]|://|\bwww\.|\]\(|`|\{\{")
CONNECTIVES = (
    "that this these those with without from have which were been when where while than then also "
    "only into over under about after before because therefore although however overall report "
    "result estimated estimate indicates indicate suggests suggest shows show based likely same "
    "similar compared comparison found says said means remain remains between each other both "
    "more less most least still cannot clinician review model there here there's their them they "
    "would could should does done having used using making made group"
)


class RephraseError(WorkflowError):
    """There is no rephrased text; the message says why, and the deterministic text stands."""


class Rephrased(Record):
    """A model's words for an explanation; ``mark`` has to be shown wherever ``text`` is."""

    mark: str
    text: str
    model: str
    source: list[str]

    @property
    def marked(self) -> str:
        """The text with its mark before it: the one form that may be stored anywhere."""
        return f"{self.mark}\n{self.text}"


@runtime_checkable
class Rephraser(Protocol):
    """Puts an explanation in other words, or says why there are none."""

    def rephrase(self, explanation: Explanation) -> Rephrased:
        """Other words for it.

        Raises:
            RephraseError: if there are none that may be shown.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RephraseLimits:
    """How long and how much a model may answer.

    Attributes:
        timeout_s: longest silence.
        deadline_s: longest time for the whole answer.
        max_bytes: largest answer.
    """

    timeout_s: float = 10.0
    deadline_s: float = 30.0
    max_bytes: int = 65_536


class ChatRephraser:
    """Any endpoint that speaks the ``/chat/completions`` shape."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        key: Secret | None = None,
        limits: RephraseLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember where to ask; nothing is sent yet.

        Args:
            base_url: for example ``https://host/v1``; https, or this machine.
            model: the model's name there.
            key: sent as a bearer token; none where the endpoint asks for none.
            limits: how long and how much it may answer.
            monotonic: clock of the deadline.

        Raises:
            RephraseError: if the address is neither https nor this machine's.
        """
        try:
            self._url = f"{require_private(base_url)}/chat/completions"
        except IntensityError:
            raise RephraseError(
                "The language model's address must be https, or on this machine, without "
                "credentials in it."
            ) from None
        self.model = model
        self._key = key
        self._limits = limits or RephraseLimits()
        self._monotonic = monotonic

    def rephrase(self, explanation: Explanation) -> Rephrased:
        """Ask once, check what comes back.

        Raises:
            RephraseError: if there is no answer in time, or none that may be shown.
        """
        source = sendable(explanation)
        text = _content(self._ask(source))
        names = dict(zip(RESULTS, explanation.classes))
        check_words(
            text, source, must_say=(names.get(explanation.suggestion) or explanation.suggestion,)
        )
        return Rephrased(
            mark=f"Put in other words by a language model ({self.model}), which may be wrong; the "
            "deterministic explanation stands.",
            text=text,
            model=self.model,
            source=source,
        )

    def _ask(self, source: Sequence[str]) -> bytes:
        import requests  # noqa: PLC0415  a tenth of a second that only those pay who ask
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.for_header()}"
        host = urlsplit(self._url).hostname
        end = self._monotonic() + self._limits.deadline_s
        try:
            with requests.post(
                self._url,
                data=json.dumps(prompt(source, self.model)).encode(),
                headers=headers,
                timeout=self._limits.timeout_s,
                stream=True,
                allow_redirects=False,
                proxies={"no_proxy": host} if host in LOOPBACK else None,
                auth=_as_it_is,
            ) as answer:
                if answer.status_code != requests.codes.ok:
                    raise RephraseError(f"The language model answered HTTP {answer.status_code}.")
                return b"".join(self._read(answer, end))
        except (requests.exceptions.RequestException, HTTPError) as error:
            # Its words may hold the address or what was sent.
            raise RephraseError(
                f"The language model gave no answer ({type(error).__name__})."
            ) from None

    def _read(self, answer: requests.Response, end: float) -> Iterator[bytes]:
        size = 0
        # read1 hands over what has arrived, so that a trickle cannot outlast the deadline
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=True):
            size += len(chunk)
            if size > self._limits.max_bytes:
                raise RephraseError("The language model's answer is too long to be one.")
            if self._monotonic() > end:
                raise RephraseError("The language model took too long.")
            yield chunk


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps an entry in ~/.netrc from replacing the header."""
    return request


def sendable(explanation: Explanation) -> list[str]:
    """The sentences that may leave: no feature, no person, no case is named in any."""
    told = [line for line in explanation.lines if line.startswith(SENT)]
    named = class_words(explanation.classes, explanation.suggestion)
    return [f"Suggestion: {named}; a clinician decides.", *told]


def prompt(source: Sequence[str], model: str) -> dict[str, Any]:
    """What is sent: the instruction and the sentences, nothing else."""
    return {
        "model": model,
        "temperature": 0,
        "messages": [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": "\n".join(source)},
        ],
    }


def _content(body: bytes) -> str:
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise RephraseError("The language model's answer has not the expected shape.") from None
    if not isinstance(text, str) or not text.strip():
        raise RephraseError("The language model said nothing.")
    return text.strip()


def check_words(text: str, source: Sequence[str], *, must_say: Sequence[str] = ()) -> None:
    """Refuse a text that says what its source does not.

    Args:
        text: a model's words.
        source: the sentences that it was given, the probability in the second.
        must_say: words that may not be lost.

    Raises:
        RephraseError: naming the kind of fault; what the model wrote is not repeated.
    """
    whole = "\n".join(source)
    _check_form(text, whole)
    _check_numbers(text, whole)
    _check_kept(text, source, must_say)
    _check_sentences(text, whole)


def _check_form(text: str, whole: str) -> None:
    if len(text) > 2 * len(whole) + 200:
        raise RephraseError("The language model wrote far more than it was given.")
    if MARKUP.search(text):
        raise RephraseError("The language model wrote markup or a link.")
    kinds = {unicodedata.category(letter) for letter in text if letter != "\n"}
    if kinds & {"Cc", "Cf", "Co", "Cs", "Cn"}:
        raise RephraseError("The language model wrote characters that cannot be seen.")
    if any(unicodedata.category(c).startswith("N") and not c.isascii() for c in text):
        raise RephraseError("The language model wrote numbers in other signs than digits.")


def _check_numbers(text: str, whole: str) -> None:
    plain, percents = _numbers(whole)
    found, found_percents = _numbers(text)
    hundred = Decimal(100)
    shares = {value / hundred for value in percents}
    as_percents = percents | plain | {value * hundred for value in plain}
    if not (found <= plain | percents | shares and found_percents <= as_percents):
        raise RephraseError("The language model wrote a number that the explanation has not.")
    lowered = whole.lower()
    spelled = {match.group().lower() for match in SPELLED.finditer(text)}
    mixed = {match.group() for match in MIXED.finditer(text)}
    if any(not re.search(rf"\b{re.escape(word)}\b", lowered) for word in spelled):
        raise RephraseError("The language model wrote a number as a word.")
    if not mixed <= {match.group() for match in MIXED.finditer(whole)}:
        raise RephraseError("The language model wrote a name with a number in it of its own.")


def _numbers(text: str) -> tuple[set[Decimal], set[Decimal]]:
    """Plain numbers and those before a percent sign; a minus counts where no range is meant."""
    plain: set[Decimal] = set()
    percents: set[Decimal] = set()
    for match in NUMBER.finditer(text):
        before = text[: match.start()]
        if before[-1:].isalpha() or before[-1:] == "_":
            continue
        value = _decimal(match.group())
        if before[-1:] in ("-", "\u2212") and not before[-2:-1].isalnum():
            value = -value
        (percents if PERCENT.match(text, match.end()) else plain).add(value)
    return plain, percents


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits.replace(",", ""))
    except InvalidOperation:
        raise RephraseError("The language model wrote a number that cannot be read.") from None


def _check_kept(text: str, source: Sequence[str], must_say: Sequence[str]) -> None:
    if any(not re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in must_say):
        raise RephraseError("The language model left out the suggestion.")
    classes = {word for word in RESULTS if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
    if any(not re.search(rf"\b{word}\b", "\n".join(source)) for word in classes):
        raise RephraseError("The language model named a class that the explanation does not name.")
    key = NUMBER.search(source[1]) if len(source) > 1 else None
    if key is None:
        return
    plain, percents = _numbers(text)
    value = _decimal(key.group())
    if value not in plain and value * 100 not in percents:
        raise RephraseError("The language model left out the probability.")


def _check_sentences(text: str, whole: str) -> None:
    """Each sentence has to be made of the source's words for the greater part; nothing denied."""
    known = {_stem(word) for word in (*_words(whole), *CONNECTIVES.split())}
    if any(_stem(match.group()) not in known for match in ADVICE.finditer(text)):
        raise RephraseError("The language model gave advice that the explanation does not give.")
    denied = [_stems(line) for line in whole.split("\n") if DENIAL.search(line)]
    for sentence in re.split(r"(?<=[.!?;])\s+|\n+", text):
        own = _stems(sentence)
        if DENIAL.search(sentence) and not any(2 * len(own & line) >= len(own) for line in denied):
            raise RephraseError("The language model denied what the explanation does not deny.")
        words = _words(sentence)
        new = [word for word in words if _stem(word) not in known]
        if len(new) >= 2 and len(new) > 0.5 * len(words):
            raise RephraseError("The language model wrote a sentence of its own.")


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]{4,}", text)


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in _words(text)}


def _stem(word: str) -> str:
    return word.lower()[:5]
