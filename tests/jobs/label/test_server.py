"""What the server answers, and to whom."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from jobs.label.run import run_label
from jobs.label.server import make_app
from jobs.label.session import Session, Who, open_session
from jobs.page import server
from jobs.page.server import make_token
from jobs.runtime.signals import ENDS, stop_on_sigterm
from wpcrack.errors import ConfigError

TOKEN = make_token()


def visit(folder, talk, who=None):
    """Run a conversation with the server of a folder."""

    async def run():
        with open_session(folder, who or Who()) as session:
            async with TestClient(TestServer(make_app(session, TOKEN))) as client:
                return await talk(client, session)

    return asyncio.run(run())


def test_without_the_token_nothing_is_told(folder):
    async def talk(client, _session):
        paths = ["/", "/state", "/x/state", "//", f"/{TOKEN[:-1]}/", f"/x{TOKEN}/state"]
        paths += ["/label.js", "/window/0", f"/%00{TOKEN}/", f"/é/{TOKEN}/"]
        answers = [await client.get(path) for path in paths]
        answers.append(await client.post("/answer", json={"index": 0, "verdict": "crack"}))
        assert {answer.status for answer in answers} == {403}
        texts = {await answer.text() for answer in answers}
        assert texts == {"open the address that `wpcrack label` has printed\n"}
        assert (await client.get(f"/{TOKEN}/")).status == 200

    visit(folder, talk)


def test_another_host_or_origin_is_refused(folder):
    async def talk(client, session):
        path = f"/{TOKEN}/state"
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0:80", ""):
            assert (await client.get(path, headers={"Host": host})).status == 403, host
        for host in ("localhost", "localhost:9000", "127.0.0.1:1"):
            assert (await client.get(path, headers={"Host": host})).status == 200
        body = {"index": 0, "verdict": "crack"}
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            answer = await client.post(f"/{TOKEN}/answer", json=body, headers={"Origin": origin})
            assert answer.status == 403
        assert session.last() is None

    visit(folder, talk)


def test_a_request_that_is_no_http_is_answered_without_a_word_here(monkeypatch, caplog):
    answers = []

    def ask(port):
        for path in ("/", "/fault"):
            for host in ("", "Host: a\r\nHost: b\r\n", "Host: localhost\r\n"):
                with socket.create_connection(("127.0.0.1", port), 60) as line:
                    line.sendall(f"GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode())
                    answers.append(int(line.recv(4096).split()[1]))
        os.kill(os.getpid(), signal.SIGINT)

    def visitor(text):
        port = int(text.partition("127.0.0.1:")[2].partition("/")[0])
        threading.Thread(target=ask, args=(port,), daemon=True).start()

    async def fault(_request):
        raise RuntimeError("a fault")

    def app(_token):
        made = web.Application()
        made.router.add_get("/fault", fault)
        return made

    monkeypatch.setattr(server, "say", visitor)
    server.serve(app, lambda: None, open_browser=False)
    assert answers == [400, 400, 404, 400, 400, 500]
    assert [str(record.exc_info[1]) for record in caplog.records] == ["a fault"]


def test_only_pictures_of_the_manifest_are_served(folder):
    async def talk(client, session):
        for path in (
            "window/../manifest.csv", "window/..%2fmanifest.csv", "window/99", "window/-1",
            "manifest.csv", "labels.jsonl", "surroundings/6", "a_r100_c80.png", "label.py",
            "window/%2e%2e/%2e%2e/etc/passwd", "window/99999999999999999999",
        ):  # fmt: skip
            answer = await client.get(f"/{TOKEN}/{path}")
            assert answer.status in (400, 403, 404), path
        answer = await client.get(f"/{TOKEN}/window/0")
        assert (answer.status, answer.content_type) == (200, "image/png")
        assert await answer.read() == (folder / "a_r100_c80.png").read_bytes()
        (folder / "a_r100_c80.png").unlink()
        (folder / "a_r100_c80.png").symlink_to("/etc/hostname")
        assert (await client.get(f"/{TOKEN}/window/0")).status == 404

    visit(folder, talk)


def test_the_browser_is_told_to_stay_here_and_no_path_is_given_away(folder):
    async def talk(client, _session):
        for path in ("", "label.js", "label.css", "state", "queue", "view/0", "window/0"):
            answer = await client.get(f"/{TOKEN}/{path}")
            assert answer.status == 200, path
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
            body = await answer.read()
            assert str(folder).encode() not in body
            assert b"secret" not in body
            assert path.startswith("window") or b"http" not in body.replace(b"http-equiv", b"")

    visit(folder, talk)


def test_answers_are_written_and_nonsense_is_not(folder):
    async def talk(client, session):
        async def post(body, path="answer"):
            answer = await client.post(f"/{TOKEN}/{path}", data=body)
            return answer.status, await answer.json()

        for wrong in (
            "", "[]", "{", '{"index": 0}', '{"index": "0", "verdict": "crack"}',
            '{"index": 0, "verdict": "hole"}', '{"index": -1, "verdict": "road"}',
            '{"index": 99, "verdict": "road"}', '{"index": 0, "verdict": "road", "x": 1}',
        ):  # fmt: skip
            status, values = await post(wrong)
            assert status == 400, wrong
            assert set(values) == {"error"}
        assert (await client.post(f"/{TOKEN}/answer", data="x" * 9000)).status == 413
        assert session.last() is None
        status, values = await post(json.dumps({"index": 0, "verdict": "crack"}))
        assert status == 200
        assert (values["views"][0]["index"], values["last"]["verdict"]) == (1, "crack")
        assert values["progress"]["left"] == 11
        lines = (folder / "labels.jsonl").read_text().splitlines()
        assert [json.loads(line)["label"] for line in lines] == ["crack"]
        assert (await post("{}", "undo"))[1]["undone"] == 0
        assert (await post("{}", "undo"))[1]["undone"] is None

    visit(folder, talk)


def program(folder, *options):
    code = (
        "import sys, typer; from jobs.cli.label import label; app = typer.Typer(); "
        "app.command()(label); app()"
    )
    arguments = [sys.executable, "-c", code, str(folder), "--no-browser", *options]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


def address_of(process):
    line = process.stderr.readline()
    assert line.startswith("the page: http://127.0.0.1:"), line
    return line.split()[-1]


def post(address, path, values):
    request = urllib.request.Request(address + path, json.dumps(values).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def test_ctrl_c_ends_with_one_sentence_and_a_kill_loses_no_answer(folder, labels_of):
    process = program(folder)
    address = address_of(process)
    for index in range(4):
        post(address, "answer", {"index": index, "verdict": "crack"})
    process.kill()
    process.communicate()
    process = program(folder)
    address = address_of(process)
    for index in range(6, 9):
        post(address, "answer", {"index": index, "verdict": "road"})
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert out == (
        "7 windows labeled (4 crack, 3 road); 5 to go; "
        f"next: wpcrack train data.root={folder} run_dir=runs/own\n"
    )  # fmt: skip
    assert sorted(labels_of(folder).values()) == ["crack"] * 4 + ["road"] * 3


@pytest.mark.parametrize("hang_up", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_second_ctrl_c_costs_nothing_and_a_hang_up_counts_as_before(folder, monkeypatch, hang_up):
    before, seen = signal.signal(signal.SIGHUP, hang_up), []

    def end(_text):  # the page is there
        seen.append(signal.getsignal(signal.SIGHUP))
        signal.raise_signal(signal.SIGINT)

    def write(self):
        signal.raise_signal(signal.SIGINT)
        original(self)

    def serve(*args, **options):
        _serve(*args, **options)
        monkeypatch.setattr(Session, "write_manifest", write)

    original, _serve = Session.write_manifest, server.serve
    monkeypatch.setattr(server, "say", end)
    monkeypatch.setattr("jobs.label.run.serve", serve)
    try:
        with stop_on_sigterm():
            handlers = [signal.getsignal(number) for number in (signal.SIGINT, *ENDS)]
            report = run_label(folder, open_browser=False)
            assert [signal.getsignal(number) for number in (signal.SIGINT, *ENDS)] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
    assert report.left == 12
    assert (seen[0] is signal.SIG_IGN) == (hang_up is signal.SIG_IGN)


def test_a_user_error_is_one_sentence(folder, tmp_path):
    for options, message in (
        ((str(folder), "--part", "4/3"), "--part 4/3 is not a part"),
        ((str(tmp_path / "gone"),), "is not a folder"),
    ):
        process = program(*options)
        out, err = process.communicate(timeout=600)
        assert (process.returncode, out, err.count("\n")) == (1, "", 1), err
        assert err.startswith("error: ")
        assert message in err


def test_a_port_in_use_is_said(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} is in use"):
            run_label(folder, port=port, open_browser=False)
    with pytest.raises(ConfigError, match="is not a port"):
        run_label(folder, port=70000)


def test_the_manifest_is_written_while_the_page_is_open(folder, labels_of, monkeypatch):
    async def talk(client, session):
        monkeypatch.setattr(server, "SAVE_EVERY_S", 0.05)
        ended = asyncio.Event()
        writing = asyncio.create_task(server._save_until(session.write_manifest, ended))
        await client.post(f"/{TOKEN}/answer", json={"index": 0, "verdict": "crack"})
        end = time.monotonic() + 600
        while not labels_of(folder) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        assert list(labels_of(folder).values()) == ["crack"]
        ended.set()
        await writing

    visit(folder, talk)
