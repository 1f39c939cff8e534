"""Labels as people write them: one rule, done twice is done, and what no address carries is refused."""

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_core.data.labels import label_fault, look_alikes, name_fault, normal_label, shown_label, text_fault

JOSE = "Jos\u00e9"


@pytest.mark.parametrize("typed", [JOSE, "Jose\u0301", f"  {JOSE}\n", f"\u00a0{JOSE}\u3000"])
def test_a_name_is_the_same_however_it_is_typed(typed: str) -> None:
    assert normal_label(typed) == JOSE
    assert label_fault(JOSE) == ""


@given(st.text())
def test_the_rule_done_twice_is_done(text: str) -> None:
    label = normal_label(text)
    assert normal_label(label) == label == label.strip()
    assert unicodedata.is_normalized("NFC", label)


@given(st.text(alphabet="./\\ax%~é", max_size=8))
def test_what_is_accepted_stays_itself_when_an_address_is_shortened(text: str) -> None:
    label = normal_label(text)
    if not label_fault(label):
        shortened = PurePosixPath("/galleries/hall/identities") / label
        assert str(shortened) == f"/galleries/hall/identities/{label}"
        assert ".." not in shortened.parts


@pytest.mark.parametrize("label", [".", "..", "a/..", "../a", "a//b", "/a", "a/", "a\\b", "a\nb", "a\x7fb", "x" * 201])
def test_what_an_address_cannot_carry_is_no_label(label: str) -> None:
    assert label_fault(label)
    assert name_fault(label)


@pytest.mark.parametrize("name", [".anna", "...", "__MACOSX", "thumbs.db"])
def test_names_of_hidden_folders_are_no_label(name: str) -> None:
    assert label_fault(name)


@pytest.mark.parametrize("word", ["", "None", "<NA>", "null", "N/A", "#N/A", "nan", "-", "-1"])
def test_words_for_nobody_are_no_label(word: str) -> None:
    assert label_fault(word)


@pytest.mark.parametrize("label", ["Null", "Na", "0000", "a/b", "floor 1/door", "100%?", "людмила 7", "%2e%2e"])
def test_names_of_people_and_things_are_labels(label: str) -> None:
    assert label_fault(label) == ""


def test_a_thing_has_no_slash_in_its_name_and_a_key_may_have_any() -> None:
    assert name_fault("a/b")
    assert text_fault("cam1/../2024//1.jpg") == ""
    assert text_fault("a\0b")


def test_look_alikes_differ_by_case_width_or_what_nobody_sees() -> None:
    labels = ["anna", "Anna", "ａｎｎａ", "an\u200bna", "ben", "anne", "Straße", "STRASSE", "a  b", "a b"]
    assert look_alikes(labels) == [
        ("Anna", "anna", "an\u200bna", "ａｎｎａ"),
        ("STRASSE", "Straße"),
        ("a  b", "a b"),
    ]
    assert shown_label("an\u200bna\ufe0f") == "an\\u200bna\\ufe0f"
