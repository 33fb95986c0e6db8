"""Phrases in many languages from Unicode's CLDR: dates, times, numbers, units and names.

Babel contains CLDR's data, num2words spells out numbers; nothing is downloaded. Dates, times, numbers, units, amounts
of money and spelled-out numbers are compositional, so that a network can generalize to unseen phrases. Names of
territories and languages are finite lists: an unseen name can only be guessed from its spelling.
"""

import datetime
import random
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple

from unrolled.training.data.base import DataError
from unrolled.training.data.splitting import split_of_name

KINDS = ("date", "time", "number", "unit", "currency", "spelled", "territory", "language")
_TRIES = 40  # draws for each requested phrase before a kind is considered exhausted
_UNITS = (
    *("length-kilometer", "length-meter", "length-mile", "mass-kilogram", "mass-gram", "volume-liter"),
    *("duration-minute", "duration-hour", "duration-day", "duration-week", "duration-month", "duration-year"),
    *("temperature-celsius", "speed-kilometer-per-hour", "digital-megabyte", "energy-kilowatt-hour"),
    *("area-square-kilometer", "power-watt"),
)
_NUM2WORDS = {"nb": "no"}  # languages with another code in num2words
_MISSPELT = ("am",)  # languages whose numbers num2words 0.5 cannot spell
_CURRENCIES = ["EUR", "USD", "GBP", "JPY", "CHF", "SEK", "CNY", "INR", "BRL", "CAD", "AUD", "PLN", "TRY", "ZAR"]


Writer = Callable[[Any], str | None]  # a phrase: Babel's locale -> text in this locale
Maker = Callable[[random.Random], Writer]  # draws a phrase


class Phrase(NamedTuple):
    """A phrase in two languages."""

    kind: str
    source: str
    target: str


def phrases(source: str, target: str, count: int, seed: int = 0) -> list[Phrase]:
    """Draws phrases of all kinds in two locales, in equal numbers as far as the kinds have enough.

    Args:
        source: a locale such as "en", "de_CH", "pt_BR".
        target: another locale.
        count: maximum number of phrases.
        seed: seed of the draws.

    Raises:
        DataError: a locale that CLDR lacks, two equal locales, or a missing package.
    """
    pair = (_locale(source), _locale(target))
    if str(pair[0]) == str(pair[1]):
        raise DataError(f"source and target are both {source!r}; choose two locales, such as data.target=fr")
    seen: set[str] = set()
    found: list[Phrase] = []
    for kind, make in _makers(pair).items():
        generator = random.Random(f"{seed} {kind}")
        wanted = -(-count // len(KINDS))
        drawn = (make(generator) for _ in range(wanted * _TRIES))
        found.extend(islice(_distinct(kind, drawn, pair, seen), wanted))
    random.Random(seed).shuffle(found)
    return found[:count]


def split_of(phrase: Phrase, shares: tuple[float, float, float]) -> str:
    """Returns the split of a phrase. It depends on the source alone, so that no phrase occurs in two splits.

    Args:
        phrase: any phrase.
        shares: fractions for training, validation and test, which sum to one.
    """
    return split_of_name(phrase.source.lower(), shares)


def _distinct(kind: str, drawn: Iterable[Writer], pair: tuple[Any, Any], seen: set[str]) -> Iterator[Phrase]:
    for write in drawn:
        source, target = (_plain(write(locale) or "") for locale in pair)
        if source and target and source.lower() not in seen:
            seen.add(source.lower())
            yield Phrase(kind, source, target)


def _plain(text: str) -> str:
    """Replaces runs of whitespace, such as CLDR's no-break spaces, by one space."""
    return " ".join(text.split())


def _locale(name: str) -> Any:
    try:
        from babel import Locale, UnknownLocaleError, localedata
    except ModuleNotFoundError:
        raise DataError("the phrases come from Babel: pip install 'unrolled[text]'") from None
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        near = get_close_matches(name, localedata.locale_identifiers(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise DataError(f"locale {name!r} is not in CLDR{hint} Examples: en, de, fr, pt_BR, zh_Hant") from None


def _makers(pair: tuple[Any, Any]) -> dict[str, Maker]:
    """Returns a function for each kind that both languages have, which draws a phrase."""
    makers: dict[str, Maker | None] = {
        "date": _date,
        "time": _time,
        "number": _number,
        "unit": _unit,
        "currency": _currency,
        "territory": _name(pair, "territories"),
        "language": _name(pair, "languages"),
        "spelled": _spelled(pair),
    }
    return {kind: make for kind, make in makers.items() if make is not None}


def _date(generator: random.Random) -> Writer:
    from babel.dates import format_date

    day = datetime.date(1900, 1, 1) + datetime.timedelta(days=generator.randrange(55_000))
    width = generator.choice(("short", "medium", "long", "full"))
    return lambda locale: format_date(day, width, locale=locale)


def _time(generator: random.Random) -> Writer:
    from babel.dates import format_datetime, format_time

    passed = datetime.timedelta(days=generator.randrange(9000), seconds=generator.randrange(86_400))
    moment = datetime.datetime(2000, 1, 1) + passed
    if generator.random() < 0.3:
        return lambda locale: format_time(moment, "medium", locale=locale)
    width = generator.choice(("short", "medium"))
    return lambda locale: format_datetime(moment, width, locale=locale)


def _number(generator: random.Random) -> Writer:
    from babel.numbers import format_decimal, format_percent

    value = generator.randrange(10 ** generator.randint(1, 9)) / 10 ** generator.randint(0, 3)
    if generator.random() < 0.3:
        return lambda locale: format_percent(round(value / 100, 4), locale=locale, decimal_quantization=False)
    return lambda locale: format_decimal(value, locale=locale)


def _unit(generator: random.Random) -> Writer:
    from babel.units import format_unit

    value, name = round(generator.randrange(10_000) / generator.choice((1, 1, 10)), 1), generator.choice(_UNITS)
    width = generator.choice(("long", "long", "short"))
    return lambda locale: format_unit(value, name, width, locale=locale)


def _currency(generator: random.Random) -> Writer:
    from babel.numbers import format_currency

    value, name = generator.randrange(1_000_000) / 100, generator.choice(_CURRENCIES)
    form = generator.choice(("standard", "name"))
    return lambda locale: format_currency(value, name, locale=locale, format_type=form)


def _name(pair: tuple[Any, Any], names: str) -> Maker | None:
    """Returns a function that draws a name of both locales ("territories" or "languages"); None without names."""
    codes = sorted(set(getattr(pair[0], names)) & set(getattr(pair[1], names)))

    def draw(generator: random.Random) -> Writer:
        code = generator.choice(codes)
        return lambda locale: getattr(locale, names)[code]

    return draw if codes else None


def _spelled(pair: tuple[Any, Any]) -> Maker | None:
    """Returns a function that draws a number in words; None if num2words lacks one of the languages."""
    try:
        from num2words import CONVERTER_CLASSES, num2words
    except ModuleNotFoundError:
        raise DataError("spelled-out numbers come from num2words: pip install 'unrolled[text]'") from None

    def language(locale: Any) -> str | None:
        known = (str(locale), locale.language, _NUM2WORDS.get(locale.language, ""))
        return next((name for name in known if name in CONVERTER_CLASSES and name not in _MISSPELT), None)

    languages = {str(locale): name for locale in pair if (name := language(locale))}
    if len(languages) < len(pair):
        return None

    def draw(generator: random.Random) -> Writer:
        value = generator.randrange(10 ** generator.randint(1, 6))
        return lambda locale: num2words(value, lang=languages[str(locale)])

    return draw
