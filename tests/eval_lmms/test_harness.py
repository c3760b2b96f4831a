"""What lmms-eval is told: by records that are checked, applied once, listed, and taken back."""

from __future__ import annotations

import inspect
import json

import pytest

pytestmark = pytest.mark.usefixtures("lmms_eval")


def places():
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.caching.response_cache import ResponseCache

    return vars(ConfigurableTask)["__init__"], vars(ResponseCache)["create"]


def test_uninstall_puts_the_very_objects_back():
    import tam_plugin
    from tam_plugin.eval.lmms import harness

    tam_plugin.uninstall()
    before = places()
    harness.attach("llava_vid", {"weights": "a"})
    applied = places()
    harness.attach("llava_vid", {"weights": "b"})
    assert all(now is not then for now, then in zip(applied, before, strict=True))
    assert all(now is then for now, then in zip(places(), applied, strict=True))
    rows = {row["name"]: row for row in tam_plugin.status()}
    assert {rows[record.name]["state"] for record in harness.RECORDS} == {"applied"}
    tam_plugin.uninstall()
    assert all(now is then for now, then in zip(places(), before, strict=True))


def test_the_cache_is_keyed_by_what_answers_depend_on(tmp_path):
    from lmms_eval.caching.response_cache import ResponseCache

    import tam_plugin
    from tam_plugin.eval.lmms import harness

    class Mine(ResponseCache):
        pass

    def key(model):
        cache = Mine.create(str(tmp_path), model=model, model_args="pretrained=x")
        cache.close()
        assert type(cache) is Mine
        return cache.model_fingerprint

    plain = {model: key(model) for model in ("tallva_onevision", "llava_vid")}
    harness.attach("llava_vid", {"weights": "a"})
    first = key("tallva_onevision")
    assert key("llava_vid") == plain["llava_vid"]
    harness.attach("llava_vid", {"weights": "b"})
    assert len({plain["tallva_onevision"], first, key("tallva_onevision")}) == 3
    tam_plugin.uninstall()
    assert key("tallva_onevision") == plain["tallva_onevision"]


def test_another_release_is_refused_by_name_and_left_as_it_is(monkeypatch):
    from lmms_eval.caching.response_cache import ResponseCache

    import tam_plugin
    from tam_plugin.eval.lmms import harness
    from tam_plugin.patches.record import HostDriftError

    tam_plugin.uninstall()
    monkeypatch.setattr(ResponseCache, "create", classmethod(lambda cls, root, model: None))
    before = places()
    with pytest.raises(HostDriftError, match=r"ResponseCache\.create.*found \(root, model\).*lmms-eval==0\.7\.3"):
        harness.attach("llava_vid", {})
    assert all(now is then for now, then in zip(places(), before, strict=True))


def test_doctor_lists_them(capsys):
    from tam_plugin.cli.main import main
    from tam_plugin.eval.lmms import harness

    assert main(["doctor", "--for", "evaluate", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["patches"]
    assert [(row["target"], row["state"]) for row in rows] == [(r.target, "applied") for r in harness.RECORDS]
    assert main(["doctor", "--for", "evaluate", "-v"]) == 0
    out = capsys.readouterr().out
    assert "patches of lmms-eval: 2 applied, 0 not needed here" in out and "ConfigurableTask.__init__: applied" in out


def test_the_signature_of_what_stands_there_is_lmms_evals():
    import tam_plugin
    from tam_plugin.eval.lmms import harness

    tam_plugin.uninstall()
    init, create = places()
    theirs = inspect.signature(init), inspect.signature(create.__func__)
    harness.attach("llava_vid", {})
    init, create = places()
    assert (inspect.signature(init), inspect.signature(create.__func__)) == theirs
    tam_plugin.uninstall()
