"""Commands with --url, against a service in a process of its own."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np

from .processes import running


def test_commands_give_the_same_answers_by_a_service(twinned, model_folder, shapes, tmp_path, monkeypatch):
    held, own = tmp_path / "held.gallery", tmp_path / "own.gallery"
    circles = sorted(map(str, (shapes / "circle").iterdir()))
    with running(model_folder, "--gallery", held) as service:
        url = ("--url", service.address)

        def both(command: tuple, *arguments: object) -> object:
            """Run a command on the service and on a gallery of this process; compare what they print."""
            code, out, err = twinned(*command, model_folder, held, *arguments, *url, "--json")
            assert code == 0, err
            local = json.loads(twinned(*command, model_folder, own, *arguments, "--json")[1])
            remote = json.loads(out)
            assert _comparable(remote) == _comparable(local)
            return remote

        code, _, err = twinned("gallery", "count", model_folder, held)
        assert code == 2
        assert "--url http://127.0.0.1:8000" in err
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no image")
        added = both(("gallery", "add"), shapes, "--meta", "site=a")
        assert added["stored"] == 48
        assert both(("gallery", "add"), broken, circles[0], "--label", "circle")["skipped"] == 1
        code, _, err = twinned("gallery", "add", model_folder, held, broken, "--label", "x", *url)
        assert (code, "none of 1 image can be read: broken.png: is not" in err) == (2, True)
        both(("gallery", "count"))
        both(("gallery", "count"), "--label", "circle")
        listed = both(("gallery", "list"), "--label", "circle")
        both(("identify",), *circles[:3], "--faces", "none")
        assert len(both(("identify",), circles[0], broken, circles[1])) == 2
        both(("identify",), circles[0], "--label", "bar", "--label", "ring", "--fpir", "0.9")
        assert len(both(("gallery", "duplicates"), "--within", "0.5")[0]) > 1
        both(("search",), *circles[:2], "-k", "3", "--exact", "--where", "site=a")
        id = listed["items"][0]["id"]
        both(("gallery", "update"), "--id", id, "--label", "dot")
        both(("gallery", "update"), "--label", "dot", "--rename", "point")
        both(("gallery", "remove"), "--label", "point")
        both(("gallery", "remove"), "--id", listed["items"][1]["id"])

        for command in (("verify", circles[0], circles[1]), ("classify", shapes, circles[2])):
            name, *arguments = command
            answers = [twinned(name, model_folder, *arguments, "--json", *more) for more in ((), url)]
            assert answers[0][0] == answers[1][0]
            assert _comparable(json.loads(answers[0][1])) == _comparable(json.loads(answers[1][1]))
        written = []
        for more in ((), url):
            twinned("embed", model_folder, shapes, broken, "-o", tmp_path / f"{len(more)}.npz", *more)
            with np.load(tmp_path / f"{len(more)}.npz") as file:
                written.append(dict(file))
        assert written[0]["path"].tolist() == written[1]["path"].tolist()
        assert np.allclose(written[0]["vector"], written[1]["vector"], atol=1e-4, equal_nan=True)
        assert written[0]["error"].tolist() == written[1]["error"].tolist()
        code, _, err = twinned("gallery", "list", model_folder, held, "--where", "site=a", *url)
        assert (code, "--where is not supported together with --url" in err) == (2, True)
        code, _, err = twinned("search", model_folder, held, broken, *url)
        assert (code, "broken.png: is not a supported image" in err) == (2, True)


def _comparable(value):
    """Leave out the files of images, which a service does not store; round numbers."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key != "image"}
        return {Path(key).name: _comparable(one) for key, one in kept.items()}
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    if isinstance(value, float):
        return round(value, 4)
    return Path(value).name if isinstance(value, str) else value


def test_the_token_is_that_of_the_environment(twinned, model_folder, shapes, monkeypatch):
    images = sorted((shapes / "ring").iterdir())[:2]
    with running(model_folder, TWINNED_TOKEN="a" * 32) as service:
        monkeypatch.delenv("TWINNED_TOKEN", raising=False)
        code, _, err = twinned("verify", model_folder, *images, "--url", service.address)
        assert (code, "Set the environment variable TWINNED_TOKEN" in err) == (2, True)
        monkeypatch.setenv("TWINNED_TOKEN", "a" * 32)
        assert twinned("verify", model_folder, *images, "--url", service.address)[0] in (0, 1)


def test_embed_is_refused_before_anything_is_written(twinned, model_folder, shapes, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = ("--url", f"http://127.0.0.1:{unused.getsockname()[1]}")
        for more, message in (
            ((), "no service answers"),
            (("--faces", "all"), "--faces all is not supported together with --url"),
            (("--resume",), "--resume is not supported together with --url"),
        ):
            code, _, err = twinned("embed", model_folder, shapes, "-o", tmp_path / "v.npz", *more, *url)
            assert (code, message in err) == (2, True)
            assert not list(tmp_path.iterdir())


def test_wrong_addresses_are_explained(twinned, model_folder, shapes):
    images = sorted((shapes / "ring").iterdir())[:2]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        code, _, err = twinned("verify", model_folder, *images, "--url", url)
    assert (code, "no service answers" in err) == (2, True)
    code, _, err = twinned("verify", model_folder, *images, "--url", "localhost:8000")
    assert (code, "expected the address of a service" in err) == (2, True)
