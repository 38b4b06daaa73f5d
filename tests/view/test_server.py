"""The server: loopback alone, GET and HEAD alone, and no path from an address to the disk."""

import http.client
import socket
import threading

import pytest

from d3fast.view.server import ViewServer
from tests.view.runs import everything


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view") / "runs"
    folder.mkdir()
    everything(folder)
    (folder.parent / "secret.json").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def server(root):
    with pytest.MonkeyPatch.context() as patch, ViewServer(root) as made:
        for module in ("audit.report.page", "view.compare"):  # figures are most of the time
            patch.setattr(f"d3fast.{module}.inline_svg", lambda figure, alt: "")
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def ask(server):
    def request(path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read().decode()

    return request


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_list_and_its_headers(ask):
    answer, text = ask("/")
    assert answer.status == 200
    assert "net-one" in text
    policy = answer.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
    assert answer.getheader("Access-Control-Allow-Origin") is None
    assert answer.getheader("Server") == "d3fast"


def test_nothing_on_a_page_is_loaded_or_run(ask):
    for path in ("/", "/run?run=demo/demo", "/compare?run=audit/net-one&run=audit/net-two"):
        text = ask(path)[1]
        assert "<script" not in text
        assert "http://" not in text.replace("http://www.w3.org/", "")
        assert "https://" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""]
)
def test_another_host_is_refused(ask, host):
    answer, text = ask("/", Host=host)
    assert answer.status == 403
    assert "net-one" not in text


def test_localhost_is_answered(ask, server):
    assert ask("/", Host=f"localhost:{server.server_port}")[0].status == 200


def raw(server, request):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def test_two_hosts_or_none_are_refused(server):
    own = f"Host: 127.0.0.1:{server.server_port}\r\n".encode()
    both = b"GET / HTTP/1.0\r\n" + own + b"Host: evil.example\r\n\r\n"
    for request in (both, b"GET / HTTP/1.0\r\n\r\n"):
        assert raw(server, request).split(b"\r\n")[0].endswith(b"403 Forbidden")


def test_what_is_no_http_gets_an_error_page(server):
    assert b"400" in raw(server, b"nonsense nonsense nonsense nonsense\r\n\r\n").split(b"\r\n")[0]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_other_methods_are_refused(ask, method):
    answer, _ = ask("/", method)
    assert answer.status == 405
    assert answer.getheader("Allow") == "GET, HEAD"


def test_head_has_the_length_and_no_content(ask):
    answer, text = ask("/", "HEAD")
    assert (answer.status, text) == (200, "")
    assert int(answer.getheader("Content-Length")) > 1000


@pytest.mark.parametrize(
    "path",
    [
        "/secret.json",
        "/../secret.json",
        "/%2e%2e/secret.json",
        "/net-one/card.json",
        "/run?run=audit/../secret.json",
        "/run?run=audit/../runs/net-one",
        "/run?run=../secret.json",
        "/run?run=/etc/passwd",
        "/run?run=audit/net-one/card.json",
        "/run?run=audit/net-one%00",
        "/run?run=audit/nowhere",
        "/run",
        "/run?run=audit/net-one&run=audit/net-two",
        "/compare?run=audit/net-one&run=audit/../../secret.json",
        "//evil.example/",
        "/favicon.ico",
    ],
)
def test_an_address_that_is_no_page_or_run_is_not_found(ask, path):
    answer, text = ask(path)
    assert answer.status == 404
    assert "secret" not in text


@pytest.mark.parametrize(
    "path", ["/?sort=x", "/?page=x", "/?kind=x", "/compare", "/?" + "a=b&" * 99]
)
def test_a_query_that_makes_no_sense_is_one_line(ask, path):
    answer, text = ask(path)
    assert answer.status == 400
    assert "This cannot be shown" in text


def test_the_page_of_a_run_and_two_audits_side_by_side(ask):
    assert "<h2>Before and after</h2>" in ask("/run?run=audit/net-one")[1]
    answer, text = ask("/compare?q=net&run=audit/net-one&run=audit/net-two")
    assert answer.status == 200
    assert "card: seed" in text
    assert 'href="/?q=net&amp;kind=&amp;sort=-written&amp;page=1&amp;run=' in text


def test_a_defect_is_a_page_and_the_server_goes_on(ask, monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("defect")

    with monkeypatch.context() as patch:
        patch.setattr("d3fast.view.server.list_page", broken)
        assert ask("/")[0].status == 500
    assert "RuntimeError: defect" in capfd.readouterr().err
    assert ask("/")[0].status == 200


def test_a_port_in_use_and_a_missing_folder_are_one_line(server, root, tmp_path):
    with pytest.raises(ValueError, match=rf"^port {server.server_port} is in use: choose another"):
        ViewServer(root, server.server_port)
    with pytest.raises(ValueError, match=r"^there is no folder"):
        ViewServer(tmp_path / "nowhere")
