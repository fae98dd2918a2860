"""What the text of a mail says about how to leave: pure functions over HTML, plain text and Liquid.

The standard library's HTML parser needs minutes for 100 KB of unclosed tags, so a mail is taken apart by searching
forward, once. Whatever may be a way out counts as one: a word for it in any of the languages below, in the text or in
a link, is enough. What is not here to be read, such as a snippet, is told apart from what has no way out.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

WayOut = Literal["there", "none", "elsewhere", "unreadable"]
"""Whether a mail has one. It may be `elsewhere`, in what the text includes; `unreadable` is what is too long, or in a
language that is not known."""

LIMIT: Final = 150_000
"""Characters of a text that can be read: mail clients cut at 100 KB, and every character costs time."""

WORDS: Final[Mapping[str, str]] = {
    "en": "unsub|un-sub|opt out|opt-out|opt_out|optout|opting out|preference|manage subscription|manage my subscription"
    "|manage your subscription|subscription setting|subscription cent|stop receiving|stop getting|not want to receive"
    "|longer want to|longer wish to|remove me|remove yourself|email setting|notification setting|mailing list"
    "|reply stop|off this list",
    "de": "abmeld|abbestell|austrag|melden sie sich ab|melde dich ab|nicht mehr erhalten|keine weiteren|einstellungen"
    "|abo beenden|abonnement beenden|abonnement kundigen|newsletter kundigen",
    "fr": "desinscri|desabonn|ne plus recevoir|ne souhaitez plus|ne souhaites plus|resilier",
    "es": "de baja|desuscri|cancelar suscripcion|cancelar la suscripcion|cancelar tu suscripcion"
    "|cancelar su suscripcion|dejar de recibir|no deseas recibir|no desea recibir",
    "pt": "descadastr|cancelar inscricao|cancelar a inscricao|cancelar sua inscricao|cancelar subscricao"
    "|cancelar a subscricao|cancelar assinatura|cancelar a assinatura|anular subscricao|anular a subscricao"
    "|deixar de receber|remover inscricao|desinscrev",
    "it": "disiscri|cancella iscrizione|cancella l'iscrizione|annulla iscrizione|annulla l'iscrizione|cancellati"
    "|preferenz|non ricevere piu|non vuoi piu|non desideri piu",
    "ca": "de baixa",
    "nl": "uitschrijv|afmeld|opzeggen|voorkeur|niet meer ontvangen",
    "sv": "avregistrer|avprenumerer|avanmal|avsluta prenumeration|installningar",
    "no": "avmeld|meld deg av|stopp abonnement|innstillinger",
    "da": "afmeld|frameld|indstillinger",
    "fi": "peruuta tilaus|peru tilaus|tilauksen peru|poistu listalta|peruuttaa|asetuks",
    "pl": "wypisz|rezygn|anuluj subskrypcj|ustawieni|preferencj",
    "cs": "odhlas|zrusit odber|zruseni odber|nastaveni",
    "sk": "odhlas|zrusit odber|nastaveni",
    "hu": "leiratkoz|beallitas",
    "ro": "dezabon|preferint",
    "hr": "odjav|postavke",
    "sl": "odjav|nastavitv",
    "sr": "odjav|одјав",
    "bg": "отпис|отпиш|настройк",
    "ru": "отпис|отпиш|отказ|настройк",
    "uk": "відпис|відмов|налаштуван",
    "el": "διαγραφ|απεγγραφ|προτιμησ",
    "tr": "abonelikten|aboneligi|listeden|tercih",
    "lt": "atsisaky|nustatym",
    "lv": "atrakst|atteik|iestatijum",
    "et": "loobu|tuhista|seaded",
    "is": "afskra",
    "ja": "配信停止|配信を停止|配信解除|登録解除|登録を解除|購読解除|購読を解除|解除|退会|設定",
    "zh": "退订|退訂|取消订阅|取消訂閱|偏好|设置|設定",
    "ko": "수신거부|수신 거부|구독취소|구독 취소|구독해지|구독 해지|수신을 원하지|설정",
    "ar": "إلغاء الاشتراك|الغاء الاشتراك|إلغاء اشتراك|تفضيلات",
    "he": "הסר|הסרה|ביטול מנוי|העדפות",
    "fa": "لغو اشتراک|لغو عضویت",
    "th": "ยกเลิก",
    "vi": "huy đang ky|ngung nhan|ngung đang ky",
    "id": "berhenti berlangganan|berhenti menerima",
    "ms": "berhenti melanggan",
    "hi": "सदस्यता समाप्त|सदस्यता छोड़|सदस्यता रद्द",
}
"""What a way out is called, by language (ISO 639-1): parts of words, without accents and in lower case."""


def folded(text: str) -> str:
    """A text as it is compared: lower case, no accents, single spaces, nothing that is not seen."""
    return " ".join(_plain(text).lower().split())


def _plain(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKD", text)[: 2 * LIMIT].translate(_UNSEEN)


_UNSEEN: Final = {code: None for code in range(0x10000) if unicodedata.category(chr(code)) in ("Mn", "Cf")}
"""Accents, and what is written to break words or not to."""
_WAYS: Final = tuple(dict.fromkeys(_plain(word) for each in WORDS.values() for word in each.split("|")))
_LIQUID = re.compile(r"\{\{\{?([^{}]{0,300})\}\}|\{%([^{}%]{0,300})%\}")
_WORD = re.compile(r"[a-z]+")
_PIECES: Final = frozenset(
    "html body content contents footer legal snippet snippets template block blocks partial".split()  # noqa: SIM905
)
"""What a variable is called that holds a piece of a mail."""
_INCLUDING: Final = frozenset(("include", "render", "layout", "block"))
_COMPONENT = re.compile(r"(?!mj-(?!include)|amp-)[a-z][a-z0-9]*-")
_LANGUAGE = re.compile(r"<html\b[^<>]{0,400}?\blang\s*=\s*[\"']?([a-z]{2,3})\b", re.IGNORECASE)
_CONTACT = re.compile(r"@|https?:|www\.|\bhref\b|\{[{%]", re.IGNORECASE)
_COMMENT = re.compile(r"\{%-? {0,3}comment {0,3}-?%\}")
_ENDCOMMENT = re.compile(r"\{%-? {0,3}endcomment {0,3}-?%\}")
_CONTENT = re.compile(r"\{\{\{?-?\s{0,9}content\s{0,9}-?\}\}\}?")
_HIDDEN: Final = ("style", "script")


class Pieces(NamedTuple):
    """A text taken apart: what is read between the tags, and the insides of the tags."""

    text: str
    tags: tuple[str, ...]


def pieces(content: str) -> Pieces:
    """Take HTML apart, without comments, styles and scripts. A plain text has no tags."""
    text: list[str] = []
    tags: list[str] = []
    for is_tag, piece in _parts(content):
        (tags if is_tag else text).append(piece)
    return Pieces("".join(text), tuple(tags))


def _parts(content: str) -> Iterator[tuple[bool, str]]:
    at, end = 0, len(content)
    closings: dict[str, int] = {}  # where a text that closes something comes next: each is searched for once

    def closing(text: str, start: int) -> int:
        if (found := closings.get(text, -1)) < start:
            found = content.find(text, start)
            closings[text] = found = end if found < 0 else found
        return found

    while at < end:
        if (opened := content.find("<", at)) < 0:
            yield False, content[at:]
            return
        yield False, content[at:opened]
        if content.startswith("<!--", opened):
            # What Outlook alone shows is shown, and is left where it is.
            at = opened + 4 if content.startswith("[if", opened + 4) else closing("-->", opened + 4) + 3
            continue
        closed = closing(">", opened)
        tag = content[opened + 1 : closed]
        yield True, tag
        at = closed + 1
        name = tag[:8].partition(" ")[0].lower()
        if name in _HIDDEN:
            at = min(closing(f"</{name}", at), closing(f"</{name.upper()}", at))


def way_out(content: str, language: str = "") -> WayOut:
    """Whether a reader of this mail, or of this part of one, finds a way not to get the next one."""
    if len(content) > LIMIT:
        return "unreadable"
    content = without_liquid_comments(content)
    text, tags = pieces(content)
    links = "\n".join(tags)
    if _says(html.unescape(text)) or _says(unquote(html.unescape(links))):
        return "there"
    if any(_COMPONENT.match(tag.lower()) for tag in tags) or any(map(_includes, _LIQUID.finditer(content))):
        return "elsewhere"
    declared = _LANGUAGE.search(content[:20_000])
    told = (declared[1] if declared else language)[:2].lower()
    return "unreadable" if told and told not in WORDS else "none"


def _says(text: str) -> bool:
    text = folded(text)
    return any(way in text for way in _WAYS)


def _includes(liquid: re.Match[str]) -> bool:
    """Whether an output, or a tag, of Liquid stands for a piece of a mail that is not here."""
    output, tag = liquid.groups()
    if output is None:
        return not _INCLUDING.isdisjoint(_WORD.findall(tag.lower())[:1])
    return not _PIECES.isdisjoint(_WORD.findall(output.partition("|")[0].lower()))


def without_liquid_comments(content: str) -> str:
    """A text without what Liquid never shows."""
    if "comment" not in content:
        return content
    kept, at = [], 0
    while opened := _COMMENT.search(content, at):
        kept.append(content[at : opened.start()])
        closed = _ENDCOMMENT.search(content, opened.end())
        if closed is None:
            return "".join(kept)
        at = closed.end()
    return "".join([*kept, content[at:]])


def without_content(layout: str) -> str:
    """A layout without the place where a mail is put."""
    return _CONTENT.sub("", layout)


def is_whole(content: str) -> bool:
    """Whether a text is a whole page, which no layout needs to be put around."""
    end = content[-2_000:].lower()
    return "</html" in end or "</body" in end


def has_nothing_to_follow(content: str) -> bool:
    """Whether there is no address and no link in a text, and nothing that could become one."""
    return _CONTACT.search(content) is None


class OneClick(NamedTuple):
    """What is wrong with the headers for leaving with one click (RFC 8058), and whether the headers alone prove it."""

    fault: str
    proven: bool


LIST_UNSUBSCRIBE: Final = "list-unsubscribe"
LIST_UNSUBSCRIBE_POST: Final = "list-unsubscribe-post"


def one_click(headers: Mapping[str, str]) -> OneClick | None:
    """The fault of a mail's headers, their names in lower case; None where there is none, or no `List-Unsubscribe`."""
    places, post = headers.get(LIST_UNSUBSCRIBE), headers.get(LIST_UNSUBSCRIBE_POST)
    if places is None or ("http" not in places.lower() and post is None):
        return None
    if post is None:
        return OneClick("`List-Unsubscribe` without `List-Unsubscribe-Post`", False)
    if "".join(post.lower().split()) != "list-unsubscribe=one-click" and "{" not in post:
        return OneClick("`List-Unsubscribe-Post` is not `List-Unsubscribe=One-Click`", True)
    if "https:" not in places.lower() and "{" not in places:
        return OneClick("`List-Unsubscribe-Post` without an https address in `List-Unsubscribe`", True)
    return None
