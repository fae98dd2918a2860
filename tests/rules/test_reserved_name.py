"""How much of a long name is shown."""

from .alone import findings


def test_sixty_characters_of_a_name_are_shown() -> None:
    for length, shown in ((60, 60), (61, 60)):
        name = "cio_" + "z" * (length - 4)
        (finding,) = findings("reserved-name", "PUT", "track.customer.io/api/v1/customers/42", {name: 1})
        assert finding.message == f"the attribute name `{name[:shown]}` is reserved"
