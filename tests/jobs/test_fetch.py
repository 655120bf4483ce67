"""`ratekit fetch`: the bulk job from the shell, with real processes and real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ratekit.testing import Answer, ApiServer
from tests.contracts.edges import until

COMMAND = [sys.executable, "-m", "ratekit", "fetch"]


def fetch(
    *words: str, cwd: Path, stdin: str | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run `ratekit fetch` with these words."""
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=50,
        cwd=cwd,
        env={**os.environ, **variables},
        check=False,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what was written."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(folder: Path, server: ApiServer, count: int) -> list[str]:
    """Write a file of so many URLs."""
    urls = [f"{server.url}/items/{number}" for number in range(count)]
    (folder / "urls.txt").write_text("# a remark\n\n" + "\n".join(urls))
    return urls


@pytest.mark.parametrize("client", ["requests", "httpx", "httpx2"])
def test_a_line_for_each_url(tmp_path: Path, server: ApiServer, client: str) -> None:
    """With its status and its body; the exit status says whether all succeeded."""
    urls = write(tmp_path, server, 20)
    done = fetch("urls.txt", "-o", "out.jsonl", "--client", client, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "20 of 20 done, 0 failed" in done.stderr
    written = lines(tmp_path / "out.jsonl")
    assert sorted(line["url"] for line in written) == sorted(urls)
    assert all(line["ok"] and line["status"] == 200 for line in written)
    assert all(isinstance(line["body"], dict) for line in written)


def test_what_fails_is_said_and_done_again(tmp_path: Path, server: ApiServer) -> None:
    """It is 1 until all have succeeded, and each has one line in the end."""
    urls = write(tmp_path, server, 5)
    server.script("/items/1", Answer(404, body=b"\xff\xfe"))
    server.script("/items/2", *[Answer(fault="reset")] * 2)
    done = fetch("urls.txt", "-o", "out.jsonl", "-q", cwd=tmp_path, RATEKIT_RETRY_ATTEMPTS="2")
    assert (done.returncode, done.stderr) == (1, "")
    by_url = {line["url"]: line for line in lines(tmp_path / "out.jsonl")}
    assert by_url[urls[1]] == {"url": urls[1], "ok": False, "status": 404, "body_base64": "//4="}
    assert "ConnectionError" in by_url[urls[2]]["error"]
    before = server.requests
    again = fetch("urls.txt", "-o", "out.jsonl", "-q", "--resume", cwd=tmp_path)
    assert (again.returncode, server.requests - before) == (0, 2)
    written = lines(tmp_path / "out.jsonl")
    assert sorted(line["url"] for line in written) == sorted(urls)
    assert all(line["ok"] for line in written)


def test_killed_in_the_middle_each_url_is_there_once(tmp_path: Path) -> None:
    """And as few are asked twice as were on their way."""
    with ApiServer(200, process=True) as server:
        urls = write(tmp_path, server, 300)
        command = [*COMMAND, "urls.txt", "-o", "out.jsonl", "-q", "--limit", "200/second"]
        out = tmp_path / "out.jsonl"
        with subprocess.Popen(command, cwd=tmp_path) as process:
            until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 100)
            os.kill(process.pid, signal.SIGKILL)
        # As if it had been killed in the middle of a line.
        with out.open("ab") as file:
            file.write(b'{"url": "http')
        done = fetch(*command[len(COMMAND) :], "--resume", cwd=tmp_path)
        seen = server.stats()
    assert done.returncode == 0
    assert Counter(line["url"] for line in lines(out)) == Counter(urls)
    assert 300 <= seen.ok <= 300 + 64


def test_ctrl_c_is_130(tmp_path: Path, server: ApiServer) -> None:
    """What is written is whole, and can be gone on with."""
    write(tmp_path, server, 50)
    command = [*COMMAND, "urls.txt", "-o", "out.jsonl", "-q", "--limit", "5/hour burst 5"]
    out = tmp_path / "out.jsonl"
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert time.monotonic() - began < 10
    assert len(lines(out)) == 5


def test_lines_from_standard_input_and_to_standard_output(
    tmp_path: Path, server: ApiServer
) -> None:
    """As a part of a pipe; a template makes the URLs."""
    done = fetch("-q", "--template", f"{server.url}/items?q={{}}", cwd=tmp_path, stdin="a b\nc&d\n")
    assert done.returncode == 0
    assert sorted(json.loads(line)["url"] for line in done.stdout.splitlines()) == [
        f"{server.url}/items?q=a%20b",
        f"{server.url}/items?q=c%26d",
    ]


def test_files_as_others_write_them(tmp_path: Path, server: ApiServer) -> None:
    """With a byte order mark, and lines that end as on Windows."""
    text = f"\ufeff{server.url}/items/1\r\n\r\n{server.url}/items/2\r\n"
    (tmp_path / "urls.txt").write_bytes(text.encode())
    done = fetch("urls.txt", "-q", cwd=tmp_path)
    assert done.returncode == 0
    assert {json.loads(line)["url"] for line in done.stdout.splitlines()} == {
        f"{server.url}/items/1", f"{server.url}/items/2",
    }  # fmt: skip


def test_a_url_that_stands_there_twice(tmp_path: Path, server: ApiServer) -> None:
    """Has two lines, also after it was gone on with."""
    (tmp_path / "urls.txt").write_text(f"{server.url}/items\n" * 2)
    for words in ((), ("--resume",)):
        done = fetch("urls.txt", "-o", "out", "-q", *words, cwd=tmp_path)
        assert (done.returncode, len(lines(tmp_path / "out"))) == (0, 2)
    assert server.requests == 2


def test_a_reader_that_wants_no_more(tmp_path: Path, server: ApiServer) -> None:
    """As `head` does: it ends, and without a traceback."""
    write(tmp_path, server, 3000)
    command = [*COMMAND, "urls.txt", "-q"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(20) == 1
    assert "Traceback" not in said
    assert server.requests < 3000


def test_a_csv_file(tmp_path: Path, server: ApiServer) -> None:
    """A column of URLs, or columns that a template names."""
    table = tmp_path / "table.csv"
    table.write_text(f'id,site,page\n1,{server.url}/items/a,"x,y"\n2,{server.url}/items/b,z\n')
    assert fetch("table.csv", "--column", "site", "-o", "one", "-q", cwd=tmp_path).returncode == 0
    assert {line["url"] for line in lines(tmp_path / "one")} == {
        f"{server.url}/items/a", f"{server.url}/items/b",
    }  # fmt: skip
    template = f"{server.url}/v{{id}}/{{page}}"
    assert (
        fetch("table.csv", "--template", template, "-o", "two", "-q", cwd=tmp_path).returncode == 0
    )
    assert {line["url"] for line in lines(tmp_path / "two")} == {
        f"{server.url}/v1/x%2Cy", f"{server.url}/v2/z",
    }  # fmt: skip


def test_method_and_headers(tmp_path: Path, server: ApiServer) -> None:
    """From a file, so that no secret is on the command line."""
    write(tmp_path, server, 1)
    (tmp_path / "headers").write_text("Authorization: Bearer abc\nX-Trace: 1\n")
    done = fetch("urls.txt", "-q", "-X", "DELETE", "--headers", "headers", cwd=tmp_path)
    assert done.returncode == 0
    (seen,) = server.seen("/items/0")
    assert (seen.method, dict(seen.headers)["Authorization"]) == ("DELETE", "Bearer abc")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.txt",), "No such file"),
        (("urls.txt", "--resume"), "--resume needs an --output"),
        (("urls.txt", "--limit", "many"), "limit 'many'"),
        (("urls.txt", "--column", "site"), "--column site: the file has # a remark"),
        (("urls.txt", "--template", "http://x/{id}"), "use one of: # a remark"),
        (("urls.txt", "-o", "notes.txt"), "notes.txt is there already: go on with it by --resume"),
        (("urls.txt", "-o", "notes.txt", "--resume"), "line 1 is not of ratekit fetch"),
        (("latin.txt",), "latin.txt: it is not UTF-8"),
        (("urls.txt", "-o", "nowhere/out"), "nowhere/out: No such file or directory"),
        (("urls.txt", "--headers", "notes.txt"), "line 1 is no header; use Name: value"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    tmp_path: Path, server: ApiServer, words: tuple[str, ...], said: str
) -> None:
    """Nothing is sent, and nothing that is there is changed."""
    write(tmp_path, server, 1)
    notes = tmp_path / "notes.txt"
    notes.write_text("not of this program\n")
    (tmp_path / "latin.txt").write_bytes(b"http://x/\xe9\n")
    done = fetch(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (notes.read_text(), server.requests) == ("not of this program\n", 0)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "latin.txt", "notes.txt", "urls.txt",
    ]  # fmt: skip
