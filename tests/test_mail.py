"""What counts as a way out of a mail, in which languages, and that hostile text is read in no time."""

import time

import pytest

from cio_proxy.mail import (
    LIMIT,
    WORDS,
    has_nothing_to_follow,
    is_whole,
    one_click,
    pieces,
    way_out,
    without_content,
    without_liquid_comments,
)

WRITTEN = {
    "en": [
        "Unsubscribe",
        "un-subscribe",
        "Opt out",
        "opt-out",
        "opt_out",
        "optout",
        "opting out",
        "Email preferences",
        "Manage subscriptions",
        "Manage your subscription",
        "Manage my subscription",
        "Subscription settings",
        "Subscription center",
        "Stop receiving these",
        "Stop getting these",
        "do not want to receive",
        "If you no longer want to hear from us",
        "If you no longer wish to hear from us",
        "Remove me",
        "Remove yourself",
        "Email settings",
        "Notification settings",
        "You are on our mailing list",
        "Reply STOP",
        "Take me off this list",
    ],
    "de": [
        "Newsletter ABMELDEN",
        "abbestellen",
        "austragen",
        "Melden Sie sich ab",
        "Melde dich ab",
        "nicht mehr erhalten",
        "keine weiteren Mails",
        "Einstellungen",
        "Abo beenden",
        "Abonnement beenden",
        "Abonnement kündigen",
        "Newsletter kündigen",
    ],
    "fr": [
        "Se désinscrire",
        "Se désabonner",
        "ne plus recevoir",
        "Si vous ne souhaitez plus",
        "tu ne souhaites plus",
        "Résilier",
    ],
    "es": [
        "Darse de baja",
        "Desuscribirse",
        "Cancelar suscripción",
        "Cancelar la suscripción",
        "Cancelar tu suscripción",
        "Cancelar su suscripción",
        "dejar de recibir",
        "no deseas recibir",
        "no desea recibir",
    ],
    "pt": [
        "Descadastrar",
        "Cancelar inscrição",
        "Cancelar a inscrição",
        "Cancelar sua inscrição",
        "Cancelar subscrição",
        "Cancelar a subscrição",
        "Cancelar assinatura",
        "Cancelar a assinatura",
        "Anular subscrição",
        "Anular a subscrição",
        "Deixar de receber",
        "Remover inscrição",
        "Desinscrever",
    ],
    "it": [
        "Disiscriviti",
        "Cancella iscrizione",
        "Cancella l'iscrizione",
        "Annulla iscrizione",
        "Annulla l'iscrizione",
        "Cancellati",
        "Preferenze",
        "non ricevere più",
        "non vuoi più",
        "non desideri più",
    ],
    "ca": ["Donar-se de baixa"],
    "nl": ["Uitschrijven", "Afmelden", "Opzeggen", "Voorkeuren", "niet meer ontvangen"],
    "sv": ["Avregistrera", "Avprenumerera", "Avanmäl", "Avsluta prenumeration", "Inställningar"],
    "no": ["Avmeld", "Meld deg av", "Stopp abonnement", "Innstillinger"],
    "da": ["Afmeld", "Frameld", "Indstillinger"],
    "fi": ["Peruuta tilaus", "Peru tilaus", "tilauksen peruminen", "Poistu listalta", "peruuttaa", "Asetukset"],
    "pl": ["Wypisz się", "Rezygnuj", "Anuluj subskrypcję", "Ustawienia", "Preferencje"],
    "cs": ["Odhlásit", "Zrušit odběr", "Zrušení odběru", "Nastavení"],
    "sk": ["Odhlásiť", "Zrušiť odber", "Nastavenia"],
    "hu": ["Leiratkozás", "Beállítások"],
    "ro": ["Dezabonare", "Preferințe"],
    "hr": ["Odjava", "Postavke"],
    "sl": ["Odjava", "Nastavitve"],
    "sr": ["Odjava", "Одјава"],
    "bg": ["Отписване", "Отпиши се", "Настройки"],
    "ru": ["Отписаться", "Отпишитесь", "Отказаться", "Настройки"],
    "uk": ["Відписатися", "Відмовитися", "Налаштування"],
    "el": ["Διαγραφή", "Απεγγραφή", "Προτιμήσεις"],
    "tr": ["Abonelikten çık", "Aboneliği iptal et", "Listeden çık", "Tercihler"],
    "lt": ["Atsisakyti", "Nustatymai"],
    "lv": ["Atrakstīties", "Atteikties", "Iestatījumi"],
    "et": ["Loobu", "Tühista", "Seaded"],
    "is": ["Afskrá"],
    "ja": [
        "配信停止",
        "配信を停止",
        "配信解除",
        "登録解除",
        "登録を解除",
        "購読解除",
        "購読を解除",
        "解除",
        "退会",
        "設定",
    ],
    "zh": ["退订", "退訂", "取消订阅", "取消訂閱", "偏好", "设置", "設定"],
    "ko": ["수신거부", "수신 거부", "구독취소", "구독 취소", "구독해지", "구독 해지", "수신을 원하지", "설정"],
    "ar": ["إلغاء الاشتراك", "الغاء الاشتراك", "إلغاء اشتراك", "تفضيلات"],
    "he": ["הסר", "להסרה", "ביטול מנוי", "העדפות"],
    "fa": ["لغو اشتراک", "لغو عضویت"],
    "th": ["ยกเลิก"],
    "vi": ["Hủy đăng ký", "Ngừng nhận", "Ngừng đăng ký"],
    "id": ["Berhenti berlangganan", "berhenti menerima"],
    "ms": ["Berhenti melanggan"],
    "hi": ["सदस्यता समाप्त", "सदस्यता छोड़ें", "सदस्यता रद्द"],
}


def test_every_language_is_tried() -> None:
    assert WRITTEN.keys() == WORDS.keys()


@pytest.mark.parametrize(("language", "written"), [(each, word) for each in WRITTEN for word in WRITTEN[each]])
def test_a_word_for_leaving_is_a_way_out_as_people_write_it(language: str, written: str) -> None:
    assert way_out(f"<p>Shop <a href='https://bit.ly/1'>{written}</a></p>", language) == "there"
    assert way_out(f"Shop: {written.upper()} https://bit.ly/1") == "there"


@pytest.mark.parametrize(
    "content",
    [
        "{% unsubscribe %}",
        "{%- unsubscribe_url -%}",
        "{{ unsubscribe_url }}",
        "{{customer.unsubscribe_link}}",
        "{% manage_subscription_preferences_url %}",
        '<a href="https://shop.example/opt-out?u=1">here</a>',
        '<a href="https://shop.example/d%C3%A9sinscription">ici</a>',
        '<a href="https://shop.example/?a=1&amp;next=unsubscribe">here</a>',
        '<a class="unsubscribe" href="https://bit.ly/1">here</a>',
        '<img alt="Unsubscribe">',
        "Un<b>sub</b>scribe",
        "un&shy;sub&#115;cribe",
        "no longer\n  want   to",
        "D&eacute;sinscription",
        "ｕｎｓｕｂｓｃｒｉｂｅ",
        "<!--[if mso]><a href='#'>Unsubscribe</a><![endif]-->",
        "<!-- a --> Unsubscribe",
        "<!---->Unsubscribe",
        "<style>a{}</style> Unsubscribe",
        "<SCRIPT>a</SCRIPT> Unsubscribe",
        "a < b Unsubscribe",
        "{% comment %}a{% endcomment %}Unsubscribe",
        "{%- comment -%}a{%- endcomment -%}Unsubscribe{% comment %}b",
    ],
)
def test_ways_out(content: str) -> None:
    assert way_out(content) == "there"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "Hi {{ customer.first_name | default: 'there' }}, {% if a %}hello{% endif %}",
        "<!-- unsubscribe -->",
        "<!-- a --> b <!-- unsubscribe -->",
        "<style>.unsubscribe{}</style>",
        "<style>a{}</style><p></p><style>.unsubscribe{}</style>",
        "<script type='x'>unsubscribe()</script>",
        "<SCRIPT>unsubscribe()</SCRIPT>",
        "{% comment %}unsubscribe{% endcomment %}",
        "{%- comment -%}unsubscribe{%- endcomment -%}",
        "a {% comment %}unsubscribe",
        "<!-- unsubscribe",
        "<style>unsubscribe",
        "Subscribe now, your subscription is waiting",
        "<mj-text>Hi</mj-text><amp-img></amp-img><o:p></o:p>",
        "{{ event.bodyguard }} {{ event.name | footer }}",
        "{% if event.include %}",
        "{% if include %}",
        "a <b",
    ],
)
def test_no_ways_out(content: str) -> None:
    assert way_out(content) == "none"


@pytest.mark.parametrize(
    "content",
    [
        "{{snippets.outro}}",
        "{{ snippet.outro }}",
        "{% include 'x' %}",
        "{%- render_liquid x -%}",
        "{% render 'x' %}",
        "{% layout 'x' %}",
        "{% block x %}",
        "{{ content }}",
        "{{{ event.html }}}",
        "{{ event.email_body | strip }}",
        "{{ a.html }}",
        "{{ a.footer }}",
        "{{ a.legal }}",
        "{{ a.template }}",
        "{{ a.block }}",
        "{{ a.blocks }}",
        "{{ a.contents }}",
        "{{ a.partial }}",
        "<x-base>",
        "<X-Base >",
        "<mj-include path='x'>",
        "<p><shop-outro></shop-outro></p>",
    ],
)
def test_what_is_elsewhere(content: str) -> None:
    assert way_out(f"<p>Hi</p> {content} <p>bye</p>") == "elsewhere"
    assert way_out(f"{content} Unsubscribe") == "there"


@pytest.mark.parametrize(
    ("content", "language", "found"),
    [
        ("Habari", "sw", "unreadable"),
        ("Habari", "SW-KE", "unreadable"),
        ("Hi", "en-GB", "none"),
        ("Hallo", "DE", "none"),
        ("<html lang='ka'>", "", "unreadable"),
        ('<HTML dir="ltr" LANG = "ka-GE">', "en", "unreadable"),
        ("<html lang=en>", "ka", "none"),
        ("<html data='lang'>", "", "none"),
        ("a" * LIMIT, "", "none"),
        ("unsubscribe" + "a" * LIMIT, "", "unreadable"),
    ],
)
def test_what_cannot_be_read(content: str, language: str, found: str) -> None:
    assert way_out(content, language) == found


def test_a_text_is_taken_apart() -> None:
    assert pieces("a<b c='d'>e</b>f<!--g-->h<br/><style>i</style>j") == (
        "aefhj",
        ("b c='d'", "/b", "br/", "style", "/style"),
    )
    assert pieces("<stylesheet>a") == ("a", ("stylesheet",))
    assert pieces("<!--[if mso]>a<![endif]-->b") == ("[if mso]>ab", ("![endif]--",))


def test_a_layout_without_its_content() -> None:
    for written in ("{{content}}", "{{ content }}", "{{{content}}}", "{{- content -}}"):
        assert without_content(f"a{written}b") == "ab"
    assert without_content("{{ event.content }} content") == "{{ event.content }} content"


def test_comments_of_liquid() -> None:
    assert without_liquid_comments("a{% comment %}b{% endcomment %}c{%comment%}d{%endcomment%}e") == "ace"
    assert without_liquid_comments("a{% comment %}b{% endcomment %}c{% comment %}d") == "ac"
    assert without_liquid_comments("a comment b") == "a comment b"


def test_a_whole_page() -> None:
    assert is_whole("<html>a</HTML>")
    assert is_whole("a</body>")
    assert not is_whole("<html>a")
    assert not is_whole("</html>" + "a" * 2_000)


@pytest.mark.parametrize("content", ["a@b", "HTTP://a", "https://a", "WWW.a", "<a HREF=x>", "{{a", "{%a"])
def test_something_to_follow(content: str) -> None:
    assert not has_nothing_to_follow(f"Hi {content}")
    assert has_nothing_to_follow("<b>Hi hrefs { { www http</b>")


POST = "List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    ("headers", "fault", "proven"),
    [
        ({"list-unsubscribe": "<https://a>"}, "`List-Unsubscribe` without `List-Unsubscribe-Post`", False),
        ({"list-unsubscribe": "<HTTP://a>"}, "`List-Unsubscribe` without `List-Unsubscribe-Post`", False),
        (
            {"list-unsubscribe": "<https://a>", "list-unsubscribe-post": "yes"},
            "`List-Unsubscribe-Post` is not `List-Unsubscribe=One-Click`",
            True,
        ),
        (
            {"list-unsubscribe": "<mailto:a@b>", "list-unsubscribe-post": POST},
            "`List-Unsubscribe-Post` without an https address in `List-Unsubscribe`",
            True,
        ),
    ],
)
def test_faults_of_headers(headers: dict[str, str], fault: str, proven: bool) -> None:
    assert one_click(headers) == (fault, proven)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"list-unsubscribe-post": POST},
        {"list-unsubscribe": "<mailto:a@b>"},
        {"list-unsubscribe": "<HTTPS://a>", "list-unsubscribe-post": " list-unsubscribe = ONE-CLICK "},
        {"list-unsubscribe": "<https://a>", "list-unsubscribe-post": "{{trigger.post}}"},
        {"list-unsubscribe": "{{trigger.place}}", "list-unsubscribe-post": POST},
    ],
)
def test_headers_without_fault(headers: dict[str, str]) -> None:
    assert one_click(headers) is None


HOSTILE = ["<", "<a ", "<!--", "<!--[if", "<style>", "<STYLE>", "</", "{{", "{{ a", "{%", "{% comment", "<a-", "<html "]
HOSTILE += ["{% comment %}", "&", "&#233;", "%C3%A9", "é", "\ufdfa", "{{a_html_"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_costs_what_its_length_costs(text: str) -> None:
    """Twice the text in about twice the time: an HTML parser that looks back takes four times as long."""

    def took(length: int) -> float:
        content = (text * (length // len(text) + 1))[:length]
        best = 9.0
        for _ in range(3):
            started = time.process_time()
            way_out(content)
            best = min(best, time.process_time() - started)
        return best

    assert took(LIMIT) < 16 * took(LIMIT // 8) + 0.05
