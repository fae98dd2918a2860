"""`cio-proxy exec` as its user meets it: unchanged programs are audited, exit codes kept, nothing is left running."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mitmproxy.certs import CertStore

from cio_proxy.exec.child import is_left

from .conftest import COMMAND, environment
from .sources.test_gateway import tls_for

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
TRACK = ROOT / ".venvs" / "sdk-track" / "bin" / "python"
KEYS = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
NODE = f"""
    const connected = [];
    const {{ connect }} = require("node:net").Socket.prototype;
    require("node:net").Socket.prototype.connect = function (...args) {{
      const options = Array.isArray(args[0]) ? args[0][0] : args[0];
      connected.push(options.port);
      return connect.apply(this, args);
    }};
    const {{ TrackClient }} = require({json.dumps(str(ROOT / "tests/sdks/node/node_modules/customerio-node"))});
    new TrackClient({KEYS[0]!r}, {KEYS[1]!r})
      .identify("42", {{ email: "ada@example.com", created_at: CREATED }})
      .then(() => console.log(JSON.stringify([...new Set(connected)])));
"""
PYTHON = f"""
    import json, sys
    connected = set()
    sys.addaudithook(lambda event, args: event == "socket.connect" and connected.add(str(args[1][1])))
    from customerio import CustomerIO
    CustomerIO({KEYS[0]!r}, {KEYS[1]!r}).identify(id="42", email="ada@example.com", created_at=CREATED)
    print(json.dumps(sorted(connected)))
"""
GOOD, BAD = "1795547010", "1795547010000"


def program(language: str, created: str) -> list[str]:
    source = textwrap.dedent({"node": NODE, "python": PYTHON}[language]).replace("CREATED", created)
    return ["node", "-e", source] if language == "node" else [str(TRACK), "-c", source]


def executed(
    folder: Path, *arguments: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "exec", *arguments]
    environ = environment(folder) | (variables or {})
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("language", ["node", "python"])
def test_a_program_with_its_default_urls_is_audited_and_talks_to_nobody_else(language: str, tmp_path: Path) -> None:
    done = executed(tmp_path, "--", *program(language, BAD))
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)) == 1
    assert done.stderr.count("error millisecond-timestamp") == 1
    assert "1 request, 1 call; findings: 1 millisecond-timestamp" in done.stderr


@pytest.mark.parametrize("language", ["node", "python"])
def test_without_a_finding_the_run_is_quiet_and_exits_0(language: str, tmp_path: Path) -> None:
    done = executed(tmp_path, "--min-calls", "1", "--", *program(language, GOOD))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "cio-proxy: 1 request, 1 call; findings: none\n"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "transport=httpx.{kind}Transport()",
        "verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)",
        "proxy='http://127.0.0.1:9'",
        "trust_env=False",
    ],
)
def test_httpx_is_audited_whatever_it_is_given(given: str, tmp_path: Path) -> None:
    source = f"""
        import asyncio, importlib.util, ssl
        importlib.util.find_spec("httpx")  # some library asks whether it is there
        import httpx
        url, keys = "https://track.customer.io/api/v1/customers/42", {KEYS!r}
        shown = lambda answer: print(answer.status_code, answer.url == url)
        with httpx.Client({given.format(kind="HTTP")}) as client:
            shown(client.put(url, auth=keys, json={{"created_at": 1795547010000}}))
        async def put():
            async with httpx.AsyncClient({given.format(kind="AsyncHTTP")}) as client:
                shown(await client.put(url, auth=keys, json={{"created_at": 1795547010000}}))
        asyncio.run(put())
        client = httpx.Client({given.format(kind="HTTP")})
        shown(client.put(url, auth=keys, json={{"created_at": 1795547010000}}))
        client.close()
    """
    done = executed(tmp_path, "--", sys.executable, "-W", "error", "-c", textwrap.dedent(source))
    assert done.stdout == "200 True\n" * 3, done.stderr
    assert (
        "cio-proxy: again: 2 millisecond-timestamp would_block\n"
        "cio-proxy: 3 requests, 3 calls; findings: 3 millisecond-timestamp\n"
    ) in done.stderr


def test_a_module_that_only_has_the_name_of_httpx_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("print('mine')")
    script = f'cd {tmp_path} && exec {sys.executable} -c "import httpx"'
    done = executed(tmp_path, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr


def test_node_starts_where_only_its_options_are_handed_on(tmp_path: Path) -> None:
    script = 'exec env -i PATH="$PATH" NODE_OPTIONS="$NODE_OPTIONS" node -e "console.log(1)"'
    done = executed(tmp_path, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_the_command_trusts_ours_what_the_proxy_was_given_and_what_its_user_named(tmp_path: Path) -> None:
    named, given = (tmp_path / f"{name}.pem" for name in ("named", "given"))
    for number, file in enumerate((named, given)):
        CertStore.from_store(folder := tmp_path / f"{number}", "company", 2048)
        file.write_bytes((folder / "company-ca-cert.pem").read_bytes())
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(f"extra_ca: {given}")
    source = "import os; print(open(os.environ['SSL_CERT_FILE']).read())"
    options = ("--config", str(config), "--", sys.executable, "-c", source)
    done = executed(tmp_path, *options, variables={"REQUESTS_CA_BUNDLE": str(named)})
    assert done.returncode == 0, done.stderr
    (ours,) = tmp_path.rglob("mitmproxy-ca-cert.pem")
    assert [done.stdout.count(each.read_text().strip()) for each in (named, given, ours)] == [1, 1, 1]


def test_nodes_own_https_is_audited(tmp_path: Path) -> None:
    source = """
        const { get, request } = require("node:https");
        const options = { host: "track.customer.io", path: "/api/v1/customers/42", method: "PUT", auth: "%s:%s" };
        const sent = request(options, (answer) => {
          console.log(answer.resume().statusCode);
          get("https://track.customer.io/api/v1/accounts/region", (answer) => console.log(answer.resume().statusCode));
        });
        sent.end('{"created_at": 1795547010000}');
    """
    done = executed(tmp_path, "--", "node", "-e", source % KEYS)
    assert done.stdout.split() == ["200", "401"], done.stderr
    assert "findings: 1 millisecond-timestamp" in done.stderr


@pytest.mark.parametrize(
    ("script", "options", "code"),
    [
        ("exit 7", (), 7),
        ("exit 0", (), 0),
        ("exit 0", ("--min-calls", "1"), 3),
        ("exit 7", ("--min-calls", "1"), 7),
        ("kill -9 $$", (), 137),
    ],
)
def test_the_commands_own_exit_code_is_kept(script: str, options: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done = executed(tmp_path, *options, "--", "sh", "-c", script)
    assert done.returncode == code
    assert "sent nothing to Customer.io" in done.stderr


@pytest.mark.parametrize(
    ("script", "options", "code", "why"),
    [
        ("exit 0", ("--min-calls", "1"), 3, "fewer calls than --min-calls 1"),
        (BAD, (), 1, "findings of severity error (`--fail-on never` keeps the command's own exit code)"),
        (BAD, ("--fail-on", "info"), 1, "findings of severity info or worse (`--fail-on never`"),
        ("exit 7", ("--min-calls", "1"), 7, None),
        (BAD, ("--fail-on", "never"), 0, None),
    ],
)
def test_another_exit_code_than_the_commands_is_explained(
    script: str, options: tuple[str, ...], code: int, why: str | None, tmp_path: Path
) -> None:
    command = program("python", BAD) if script == BAD else ["sh", "-c", script]
    done = executed(tmp_path, *options, "--", *command)
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if line.startswith("cio-proxy: exit code")]
    assert len(told) == (why is not None)
    assert why is None or told[0].startswith(f"cio-proxy: exit code {code}: {why}")


def test_what_is_interrupted_before_there_is_a_command_ends_as_a_shell_counts(tmp_path: Path) -> None:
    fifo = tmp_path / "cio-proxy.yaml"
    os.mkfifo(fifo)  # nobody writes to it: the start waits
    starting = subprocess.Popen(
        [COMMAND, "exec", "--config", str(fifo), "--", "true"], env=environment(tmp_path), stderr=subprocess.PIPE
    )
    with fifo.open("wb"):  # it is being read
        starting.send_signal(signal.SIGINT)
    _, err = starting.communicate(timeout=30)
    assert (starting.returncode, b"Traceback" in err) == (130, False)


def test_the_code_is_kept_where_nobody_can_read_the_report(tmp_path: Path) -> None:
    command = [COMMAND, "exec", "--", "sh", "-c", "exit 7"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=environment(tmp_path), stderr=full, timeout=60, check=False)
    assert done.returncode == 7


def test_a_failing_suite_keeps_its_code_and_is_reported_all_the_same(tmp_path: Path) -> None:
    node = program("node", BAD)
    done = executed(tmp_path, "--", "sh", "-c", '"$@" && exit 5', "sh", *node)
    assert done.returncode == 5
    assert "error millisecond-timestamp" in done.stderr


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1), ("never", 0)])
def test_fail_on_says_from_which_severity_a_run_fails(fail_on: str, code: int, tmp_path: Path) -> None:
    url = "https://track.customer.io/api/v1/customers/42"
    script = f'curl -s -u {":".join(KEYS)} -X PUT -d \'{{"cio_id": "x"}}\' {url}'  # reserved-name: a warning
    done = executed(tmp_path, "--fail-on", fail_on, "--", "sh", "-c", script)
    assert "warning reserved-name" in done.stderr, done.stderr
    assert done.returncode == code


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/", 126)])
def test_a_command_that_cannot_be_run_is_one_line(command: str, code: int, tmp_path: Path) -> None:
    done = executed(tmp_path, "--", command)
    assert done.returncode == code
    assert done.stderr.startswith(f"cio-proxy: {command}: ")
    assert done.stderr.count("\n") == 1


def test_what_its_user_set_up_for_node_and_python_still_holds(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nif 'CIO_PROXY_HOSTS' in os.environ: print('mine')")
    (tmp_path / "mine.cjs").write_text("console.log('mine')")
    variables = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
        "NODE_OPTIONS": f"--require {tmp_path / 'mine.cjs'}",
        "NO_PROXY": "*.customer.io,intranet",
    }
    script = f'{sys.executable} -c pass; node -e 0; echo "$NO_PROXY"'
    done = executed(tmp_path, "--", "sh", "-c", script, variables=variables)
    assert done.stdout == "mine\nmine\nintranet,localhost,127.0.0.1,::1\n", done.stderr


def test_a_proxy_that_its_user_named_is_on_the_way_to_other_sites(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as named:
        heads = []

        def refuse() -> None:
            client, _ = named.accept()
            with client:
                heads.append(client.recv(65536).decode())
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        answering = threading.Thread(target=refuse, daemon=True)
        answering.start()
        variables = {"HTTPS_PROXY": f"http://me:secret@127.0.0.1:{named.getsockname()[1]}", "https_proxy": ""}
        done = executed(tmp_path, "--", "curl", "-s", "https://elsewhere.test/", variables=variables)
        answering.join(10)
    assert heads[0].startswith("CONNECT elsewhere.test:443 ")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in heads[0]
    assert "secret" not in done.stderr


@pytest.mark.parametrize("variable", ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"])
def test_authorities_that_its_user_named_are_trusted_for_sites_that_we_speak_to(variable: str, tmp_path: Path) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    asked = """
        import os, socket, sys
        host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:  # as axios asks a proxy
            client.sendall(f"GET https://localhost:{sys.argv[1]}/ HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
            print(client.recv(65536).decode().splitlines()[0])
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                client.recv(65536)

        threading.Thread(target=answer, daemon=True).start()
        command = [sys.executable, "-c", textwrap.dedent(asked), str(listening.getsockname()[1])]
        done = executed(tmp_path, "--", *command, variables={variable: str(ca)})
    assert done.stdout == "HTTP/1.1 204 No Content\n", done.stderr


@pytest.mark.parametrize("folder", [False, True])
def test_authorities_that_its_user_named_are_in_the_bundle(folder: bool, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    _, ca = tls_for("localhost", tmp_path / "ca")
    (mine / "ca.pem").write_bytes(ca.read_bytes())
    variables = {"REQUESTS_CA_BUNDLE": str(mine if folder else mine / "ca.pem")}
    done = executed(tmp_path, "--", "sh", "-c", 'cat "$REQUESTS_CA_BUNDLE"', variables=variables)
    assert ca.read_text().strip() in done.stdout


def test_a_proxy_that_cannot_be_used_is_told_of_without_its_value(tmp_path: Path) -> None:
    variables = {"HTTPS_PROXY": "socks5://me:secret@127.0.0.1:1080", "https_proxy": ""}
    done = executed(tmp_path, "--", "true", variables=variables)
    assert done.stderr.startswith("cio-proxy: HTTPS_PROXY is no HTTP proxy with a port")
    assert "secret" not in done.stderr


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    return False


WAITING = "sleep 300 & echo $$ $! ; wait"


UNIGNORED = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""What started the tests may ignore signals, and so would all that they start."""
IN_FOREGROUND = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + UNIGNORED


def started(folder: Path, *command: str) -> tuple[subprocess.Popen[str], list[int]]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    execution = [sys.executable, "-c", UNIGNORED, COMMAND, "exec", "--", *command]
    process = subprocess.Popen(execution, env=environment(folder), **pipes)
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_nothing_is_left_running(number: signal.Signals, tmp_path: Path) -> None:
    process, pids = started(tmp_path, "sh", "-c", WAITING)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert gone(pids)


def test_a_signal_that_comes_twice_reaches_a_run_within_another_and_both_report(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "sh", "-c", '"$0" exec -- sh -c "$1"; exit $?', COMMAND, WAITING)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.count("0 requests")) == (143, 2), err
    assert gone(pids)


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "sh", "-c", "trap '' TERM; sleep 300 & echo $!; exit 0")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert gone(pids)


def test_a_group_of_which_nobody_runs_any_more_is_not_waited_for() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as process:
        assert is_left(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is there until it is collected
        assert not is_left(process.pid)


def test_ctrl_c_on_a_terminal_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    terminal, other = pty.openpty()
    command = [COMMAND, "exec", "--", "sh", "-c", f'echo "$CIO_PROXY_URL" "$HTTPS_PROXY"; {WAITING}']
    process = subprocess.Popen(
        [sys.executable, "-c", IN_FOREGROUND, *command],
        stdin=other,
        stdout=other,
        stderr=other,
        env=environment(tmp_path),
        start_new_session=True,
    )
    os.close(other)
    shown = ""
    until = time.monotonic() + 60
    while shown.count("\n") < 2 and time.monotonic() < until:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode()
    urls, pids = (line.split() for line in shown.splitlines()[:2])
    os.write(terminal, b"\x03")
    assert process.wait(30) == 130
    os.close(terminal)
    assert gone([int(pid) for pid in pids])
    for url in urls:
        address = urlsplit(url)
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect((address.hostname, address.port))
