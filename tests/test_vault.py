"""Secrets at rest: sealed with the first key, opened with any, and never in a message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabkeeper.errors import ConfigError, SealedError
from tabkeeper.vault import Vault, keyed_hash, new_key, new_salt, passphrase_vault

OLD, NEW = new_key(), new_key()


@given(st.text())
@settings(max_examples=50)
def test_what_was_sealed_opens_again_and_does_not_show(text):
    sealed = Vault([OLD]).seal(text)
    assert Vault([OLD]).open(sealed) == text
    assert len(text) < 4 or text not in sealed


def test_the_first_key_seals_and_all_open():
    old = Vault([OLD]).seal("secret")
    both = Vault([NEW, OLD])
    assert both.open(old) == "secret"
    moved = both.reseal(old)
    assert Vault([NEW]).open(moved) == "secret"
    with pytest.raises(SealedError):
        Vault([OLD]).open(moved)


def test_a_strange_key_or_a_changed_text_is_told_without_showing_either():
    sealed = Vault([OLD]).seal("secret")
    for vault, text in [(Vault([NEW]), sealed), (Vault([OLD]), sealed[:-4] + "AAA="), (Vault([OLD]), "é")]:
        with pytest.raises(SealedError) as told:
            vault.open(text)
        assert OLD not in str(told.value)
        assert text not in str(told.value)
    assert OLD not in repr(Vault([OLD]))


def test_without_a_key_nothing_is_sealed_and_one_sentence_says_what_to_do():
    assert Vault().seal_if_possible("secret") is None
    with pytest.raises(ConfigError, match="no key is set: run `tabkeeper db new-key`"):
        Vault().seal("secret")


@pytest.mark.parametrize("key", ["", "short", "ä" * 44, "A" * 45])
def test_a_key_of_the_wrong_form_is_a_mistake_in_the_configuration_that_does_not_show_it(key):
    with pytest.raises(ConfigError, match=r"security\.keys\.1") as told:
        Vault([OLD, key])
    assert not key or key not in str(told.value)


def test_a_passphrase_opens_what_it_sealed_and_no_other_does():
    salt = new_salt()
    sealed = passphrase_vault("correct horse", salt).seal("secret")
    assert passphrase_vault("correct horse", salt).open(sealed) == "secret"
    with pytest.raises(SealedError):
        passphrase_vault("correct house", salt).open(sealed)
    with pytest.raises(SealedError):
        passphrase_vault("correct horse", new_salt()).open(sealed)


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_keyed_hashes_are_equal_only_for_equal_parts(one, other):
    assert (keyed_hash("k", *one) == keyed_hash("k", *other)) == (one == other)
    assert keyed_hash("k", *one) != keyed_hash("l", *one)
