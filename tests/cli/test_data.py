"""``twinned data list`` and ``twinned data get``."""

from __future__ import annotations

from pathlib import Path

from twinned.data.catalog.registry import DATA_SETS


def test_list_shows_terms_and_addresses_of_data_sets(twinned):
    shown = twinned("data", "list")
    found = twinned("data", "list", "--json").json
    assert [each["name"] for each in found] == list(DATA_SETS)
    for each in found:
        assert each["terms"] in shown.out
        assert all(file["address"] in shown.out for file in each["files"])
    assert "digits" in shown.out


def test_digits_are_written_ready_for_training(twinned, place):
    found = twinned("data", "get", "digits", "-o", "numbers", "--json").json
    assert found["images"] == 1797
    assert found["data"] == ["numbers/known", "numbers/novel"]
    assert twinned("check", "numbers/known", "--json").json["classes"] == 7
    assert "numbers: exists" in twinned("data", "get", "digits", "-o", "numbers").error
    assert twinned("data", "get", "digits", "-o", "numbers", "--force").code == 0
    assert (
        "was not written by this command" in twinned("data", "get", "digits", "-o", "flat", "--force").error
    )


def test_invalid_arguments_are_refused_in_one_line(twinned, place, monkeypatch):
    monkeypatch.delenv("TWINNED_DATA", raising=False)
    assert "Unknown data set 'mnist'" in twinned("data", "get", "mnist").error
    shown = twinned("data", "get", "orl", "--from", "flat", "-q")
    assert "Holds no files of orl" in shown.error
    assert not Path("orl").exists()
