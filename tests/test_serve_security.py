"""The checks of the local page, one by one: which requests are answered, and what is said of other hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcat.errors import ConfigError
from jaxcat.extras import install
from jaxcat.serve import security, server
from jaxcat.serve.__main__ import main
from jaxcat.serve.security import Policy, entered, refusal

TOKEN = "k" * 43
POLICY = Policy(TOKEN, 8765)
OWN = "127.0.0.1:8765"
BEARER = ("authorization", f"Bearer {TOKEN}")
COOKIE = ("cookie", f"jaxcat-8765={TOKEN}")


def allowed(*headers: tuple[str, str], method: str = "GET", path: str = "/state", policy: Policy = POLICY) -> bool:
    return why(*headers, method=method, path=path, policy=policy) == ""


def why(*headers: tuple[str, str], method: str = "GET", path: str = "/state", policy: Policy = POLICY) -> str:
    plain = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    found = refusal(policy, method=method, path=path, headers=plain)
    return "" if found is None else f"{found.status.value} {found.reason}"


# the host -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [OWN, "localhost:8765", "LocalHost:8765", "[::1]:8765"])
def test_its_own_names(host):
    assert allowed(("host", host), BEARER)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example:8765",
            "127.0.0.1:80",
            "127.0.0.1",
            "localhost.evil.example:8765",
            "127.0.0.1.evil.example:8765",
        ),
        *("", ":8765", "127.0.0.1:8765@evil.example", "evil.example#127.0.0.1:8765", "127.1:8765", "0.0.0.0:8765"),
        *("192.168.0.7:8765", "[::1]", "[::1]:8765:8765", "127.0.0.1:8765, evil.example", "2130706433:8765"),
        *("127.0.0.1:08765", "localhost.:8765", "[::ffff:127.0.0.1]:8765"),
    ],
)
def test_other_names_as_a_rebound_site_would_send_them(host):
    for path in ("/state", "/healthz", "/"):
        assert why(("host", host), BEARER, COOKIE, path=path).startswith("403 the Host header")


def test_a_request_without_a_host_or_with_two():
    assert not allowed(BEARER)
    assert not allowed(("host", OWN), ("host", OWN), BEARER)


def test_the_usual_port_may_be_left_out():
    policy = Policy(TOKEN, 80)
    assert allowed(("host", "127.0.0.1"), BEARER, policy=policy)
    assert allowed(("host", "127.0.0.1:80"), BEARER, policy=policy)
    assert not allowed(("host", "evil.example"), BEARER, policy=policy)


# other sites ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1:8000", "http://localhost:8765"),
        *("http://127.0.0.1", "", "file://", "chrome-extension://abc", "http://127.0.0.1:8765.evil.example"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_foreign_origins_are_refused_even_with_the_token(origin, method):
    assert why(("host", OWN), ("origin", origin), BEARER, COOKIE, method=method).startswith("403")
    assert not allowed(("host", OWN), ("origin", f"http://{OWN}"), ("origin", origin), BEARER)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "SAME-ORIGIN", "same-origin, cross-site"])
def test_other_sites_are_refused_even_with_the_token(site):
    for path in ("/", "/state", "/healthz"):
        assert why(("host", OWN), ("sec-fetch-site", site), BEARER, COOKIE, path=path).startswith("403")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_page_and_addresses_that_a_person_types_pass(site):
    assert allowed(("host", OWN), ("sec-fetch-site", site), ("origin", f"http://{OWN}"), COOKIE)
    assert allowed(("host", OWN), ("sec-fetch-site", site), BEARER, method="POST", path="/predict")


# the token ------------------------------------------------------------------------------------------------------------


def test_only_healthz_needs_no_token_and_only_to_be_read():
    assert allowed(("host", OWN), path="/healthz")
    assert allowed(("host", OWN), path="/healthz", method="HEAD")
    for path in ("/", "/state", "/predict", "/page/main.js", "/healthz/", "//healthz", "/healthz/../state"):
        assert why(("host", OWN), path=path).startswith("403 open the address")
    assert not allowed(("host", OWN), path="/healthz", method="POST")


def test_the_cookie_reads_and_does_not_post():
    assert allowed(("host", OWN), COOKIE)
    assert allowed(("host", OWN), ("cookie", f"a=b; jaxcat-8765={TOKEN}; jaxcat-1=x"))
    assert not allowed(("host", OWN), COOKIE, method="POST", path="/predict")
    assert not allowed(("host", OWN), ("cookie", f"jaxcat-8766={TOKEN}"))
    assert allowed(("host", OWN), BEARER, method="POST", path="/predict")


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "k", TOKEN.upper(), f"{TOKEN},{TOKEN}", "\xff\xfe"])
def test_other_tokens(token):
    assert not allowed(("host", OWN), ("authorization", f"Bearer {token}"))
    assert not allowed(("host", OWN), ("cookie", f"jaxcat-8765={token}"))
    assert not entered(POLICY, method="GET", path="/", query=f"token={token}".encode("latin-1"))


def test_one_header_and_one_kind_of_authorization():
    assert not allowed(("host", OWN), ("authorization", f"Basic {TOKEN}"))
    assert not allowed(("host", OWN), ("authorization", TOKEN))
    assert not allowed(("host", OWN), BEARER, BEARER)
    assert allowed(("host", OWN), ("authorization", f"bearer {TOKEN}"))


def test_the_entrance_takes_the_token_from_the_address():
    query = f"a=b&token={TOKEN}".encode()
    assert entered(POLICY, method="GET", path="/", query=query)
    assert not entered(POLICY, method="POST", path="/", query=query)
    assert not entered(POLICY, method="GET", path="/state", query=query)
    assert not entered(POLICY, method="GET", path="/", query=b"")
    words = security.cookie_header(POLICY).split("; ")
    assert words == [f"jaxcat-8765={TOKEN}", "Path=/", "HttpOnly", "SameSite=Strict"]


def test_tokens_are_long_and_never_the_same():
    tokens = {security.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(not security.chosen_token_problem(token) and len(token) >= 43 for token in tokens)


def test_the_policy_of_the_page_allows_no_inline_code_and_no_other_address():
    parts = dict(part.strip().split(" ", 1) for part in security.CONTENT_SECURITY_POLICY.split(";"))
    assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == parts["frame-ancestors"] == "'none'"
    assert (parts["script-src"], parts["style-src"], parts["connect-src"]) == ("'self'",) * 3
    assert "unsafe" not in security.CONTENT_SECURITY_POLICY
    assert "http" not in security.CONTENT_SECURITY_POLICY
    assert not any("access-control" in name for name in security.HEADERS)
    assert security.HEADERS["x-content-type-options"] == "nosniff"


# other hosts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_loopback(host):
    assert security.is_loopback(host)
    server.check_host(host, token=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "laptop", "", "localhost.evil.example"])
def test_another_host_needs_a_token_of_ones_own_and_says_what_it_means(host, tmp_path):
    assert not security.is_loopback(host)
    with pytest.raises(ConfigError, match=r"other machines could then reach .*Nothing is encrypted.*--token-file"):
        main(["--workdir", str(tmp_path), "--host", host])
    server.check_host(host, token=True)


def test_names_of_a_server_that_others_reach():
    policy = Policy(TOKEN, 8765, security.own_names("0.0.0.0", ["Laptop"]), any_address=True)
    for host in ("laptop:8765", "192.168.0.7:8765", "[fe80::1]:8765", OWN):
        assert allowed(("host", host), BEARER, policy=policy)
        assert allowed(("host", host), ("origin", f"http://{host}"), COOKIE, policy=policy)
    for host in ("evil.example:8765", "192.168.0.7.evil.example:8765", "192.168.0.7:80", "1.2.3:8765"):
        assert not allowed(("host", host), BEARER, policy=policy)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_the_token_of_programs_is_in_a_file_that_only_the_user_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    old = os.umask(0)
    try:
        with server.token_file(POLICY) as path:
            assert path.read_text() == TOKEN
            assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert not path.exists()
        (tmp_path / "victim").write_text("mine")
        path.symlink_to(tmp_path / "victim")  # of a server that was killed, or of somebody else
        with server.token_file(POLICY) as path:
            assert (path.read_text(), path.is_symlink()) == (TOKEN, False)
        assert (tmp_path / "victim").read_text() == "mine"
    finally:
        os.umask(old)


def test_a_chosen_token_is_strong_and_private(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    assert server.read_token(file) == TOKEN
    for text, says in (("short", "5 characters, fewer than 32"), ("ä" * 40, "letters, digits"), ("", "letters")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"--token-file {file}: the token .*{says}"):
            server.read_token(file)
    with pytest.raises(ConfigError, match="--token-file .*cannot be read"):
        server.read_token(tmp_path / "none")
    if os.name == "posix":
        file.write_text(TOKEN)
        file.chmod(0o644)
        with pytest.raises(ConfigError, match="others may read it: chmod 600"):
            server.read_token(file)


# requests that cannot work --------------------------------------------------------------------------------------------


def test_without_the_extra_one_line_names_it(tmp_path):
    code = (
        "import sys, importlib.util as found\n"
        "real = found.find_spec\n"
        "found.find_spec = lambda name, *rest: None if name in ('starlette', 'uvicorn') else real(name, *rest)\n"
        "from jaxcat.serve.__main__ import main\n"
        "from jaxcat.system import cli\n"
        "cli.run(main, sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "--workdir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"error: jaxcat.serve needs starlette, uvicorn: {install('serve')}\n"


def test_a_port_that_is_taken_or_impossible(tmp_path, capsys):
    with server.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--host 127.0.0.1 --port {port}: .*give another port"):
            main(["--workdir", str(tmp_path), "--port", str(port)])
    for wrong in ("-1", "65536"):
        with pytest.raises(SystemExit):
            main(["--workdir", str(tmp_path), "--port", wrong])
