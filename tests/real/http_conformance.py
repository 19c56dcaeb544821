#!/usr/bin/env python3
"""Talks to the HTTP server example as real clients do, over real sockets, and counts what was answered.

    http_conformance.py [--only WORD] LABEL=PROGRAM...

PROGRAM is a built examples/http_server.cpp; each section starts its own, so that a section that wrecks one is seen in that
section. What is looked at: the status of every refusal; requests cut anywhere; hundreds of requests in one segment; clients
that close half, reset, dawdle, or do not read; more clients than the bound; no descriptors left; SIGTERM under load; and
after every section, that the server's descriptors and threads are as many as before it.

Needs python3 and nothing else. curl and wrk are driven too when they are installed; when one is missing, that is said.
"""
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

LIMIT_S = 20.0  # after which a client that got no answer counts as hung


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.section = ""

    def expect(self, holds, what, detail=""):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print("FAILED %s: %s%s" % (self.section, what, ": " + str(detail)[:400] if detail != "" else ""), flush=True)
        return holds

    def equal(self, got, wanted, what):
        return self.expect(got == wanted, what, "got %r, wanted %r" % (got, wanted))


tally = Tally()


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def closes(self):
        return self.headers.get("connection", "").lower() == "close"


class Lost(Exception):
    """The connection ended, or reset, where an answer was due."""


class Client:
    def __init__(self, port, receive_bytes=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def end(self):
        self.socket.shutdown(socket.SHUT_WR)

    def more(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionError as error:
            raise Lost(str(error))
        except socket.timeout:
            raise Lost("no answer within %d s" % LIMIT_S)
        if not data:
            raise Lost("the end of the stream")
        self.buffer += data

    def response(self, to_head=False):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z ]+", lines[0])
        if not match:
            raise Lost("a malformed status line: %r" % lines[0])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        status = int(match.group(1))
        length = 0 if to_head or status == 100 else int(headers["content-length"])
        while len(self.buffer) < length:
            self.more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Response(status, headers, body)

    def ask(self, data, to_head=False):
        self.send(data)
        return self.response(to_head)

    def ends_cleanly(self):
        """True when the server ended the stream and sent nothing more: no reset, no stray bytes."""
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except OSError:
            return False


class Server:
    def __init__(self, program, *arguments, workers=2, files=0):
        def limit_files():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self.process = subprocess.Popen(
            [program, "--port", "0", "--workers", str(workers)] + [str(a) for a in arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=limit_files,
        )
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            raise RuntimeError("the server did not start: %r" % (line + self.process.stdout.read().decode()))
        self.port = int(line.rsplit(":", 1)[1])
        for _ in range(3):  # what a first request sets up for good is not counted as a leak
            with Client(self.port) as client:
                client.ask(get("/slow?ms=1"))
        self.wait_for_rest()
        self.files, self.threads = self.settled()

    def count(self, what):
        return len(os.listdir("/proc/%d/%s" % (self.process.pid, what)))

    def settled(self):
        """Descriptors and threads, once they were the same for a fifth of a second."""
        seen = []
        while len(seen) < 20 or len(set(seen[-20:])) > 1:
            seen.append((self.count("fd"), self.count("task")))
            time.sleep(0.01)
        return seen[-1]

    def cpu_s(self):
        fields = open("/proc/%d/stat" % self.process.pid).read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def figures(self):
        with Client(self.port) as client:
            body = client.ask(get("/stats", "Connection: close")).body.decode()
        return {name: int(value) for name, value in re.findall(r'"(\w+)": (\d+)', body)}

    def wait_for_rest(self, limit_s=8.0):
        """Until the client that asks is the only one connected."""
        end = time.monotonic() + limit_s
        figures = self.figures()
        while figures["connections_open"] > 1 and time.monotonic() < end:
            time.sleep(0.01)
            figures = self.figures()
        return figures

    def expect_no_leak(self):
        figures = self.wait_for_rest()
        tally.equal(figures["connections_open"], 1, "every connection of the section has ended")
        end = time.monotonic() + 5.0
        while (self.count("fd"), self.count("task")) != (self.files, self.threads) and time.monotonic() < end:
            time.sleep(0.01)
        tally.equal(self.count("fd"), self.files, "open descriptors are back to where they were")
        tally.equal(self.count("task"), self.threads, "threads are back to where they were")

    def stop(self, limit_s=15.0):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended(limit_s)

    def ended(self, limit_s=15.0):
        try:
            output = self.process.communicate(timeout=limit_s)[0].decode()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            tally.expect(False, "the server ends after SIGTERM")
            return ""
        tally.equal(self.process.returncode, 0, "the server's exit code")
        tally.expect("drained:" in output, "the server says that it drained", output)
        return output


@contextlib.contextmanager
def serving(program, *arguments, **options):
    server = Server(program, *arguments, **options)
    try:
        yield server
        if server.process.poll() is None:
            server.expect_no_leak()
    finally:
        server.stop()


def get(path, *fields, method="GET"):
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: localhost"] + list(fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(path, body, *fields):
    return get(path, "Content-Length: %d" % len(body), *fields, method="POST") + body


def post_chunked(path, *chunks):
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(path, "Transfer-Encoding: chunked", method="POST") + body + b"0\r\n\r\n"


# --- what is refused, and how ---

LONG_HEADERS = "".join("X-%d: %s\r\n" % (i, "x" * 8000) for i in range(5))
MANY_HEADERS = "".join("X-%d: y\r\n" % i for i in range(101))

POST_TO = "POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKS_TO = POST_TO + "Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    ("no method", 400, " / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two words", 400, "GET /\r\n\r\n"),
    ("two spaces", 400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("tab as a separator", 400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("control in the target", 400, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("NUL in the target", 400, "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment in the target", 400, "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("target that is no path", 400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("malformed version", 400, "GET / HTTP/1.x\r\nHost: a\r\n\r\n"),
    ("lower-case version", 400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("bare LF", 400, "GET / HTTP/1.1\nHost: a\n\n"),
    ("bare LF after a header", 400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    ("bare CR", 400, "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"),
    ("two empty lines first", 400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("TLS to a plain port", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("space before the colon", 400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("folded line", 400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("space before the first header", 400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("no colon", 400, "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("empty name", 400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    ("NUL in a value", 400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"),
    ("no Host", 400, "GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("malformed Host", 400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("userinfo in Host", 400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    ("length and coding", 400, POST_TO + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("coding and length", 400, POST_TO + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("two lengths", 400, POST_TO + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
    ("a list of lengths", 400, POST_TO + "Content-Length: 5, 6\r\n\r\nabcdef"),
    ("signed length", 400, POST_TO + "Content-Length: +5\r\n\r\nabcde"),
    ("negative length", 400, POST_TO + "Content-Length: -5\r\n\r\nabcde"),
    ("hexadecimal length", 400, POST_TO + "Content-Length: 0x5\r\n\r\nabcde"),
    ("empty length", 400, POST_TO + "Content-Length:\r\n\r\nabcde"),
    ("chunked twice", 400, POST_TO + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", 400, POST_TO + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked in HTTP/1.0", 400, "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("space in a chunk size", 400, CHUNKS_TO + " 3\r\nabc\r\n0\r\n\r\n"),
    ("0x in a chunk size", 400, CHUNKS_TO + "0x3\r\nabc\r\n0\r\n\r\n"),
    ("chunk longer than it says", 400, CHUNKS_TO + "3\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size in LF", 400, CHUNKS_TO + "3\nabc\r\n0\r\n\r\n"),
    ("large chunk", 413, CHUNKS_TO + "fffffffff\r\n"),
    ("large body", 413, POST_TO + "Content-Length: 1048577\r\n\r\nabc"),
    ("length that overflows", 413, POST_TO + "Content-Length: 18446744073709551617\r\n\r\nabc"),
    ("long target", 414, "GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("endless target", 414, "GET /" + "a" * 60000),
    ("unknown expectation", 417, POST_TO + "Expect: more\r\nContent-Length: 3\r\n\r\nabc"),
    ("long header", 431, "GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 9000 + "\r\n\r\n"),
    ("endless header", 431, "GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 60000),
    ("large head", 431, "GET / HTTP/1.1\r\nHost: a\r\n" + LONG_HEADERS + "\r\n"),
    ("many headers", 431, "GET / HTTP/1.1\r\nHost: a\r\n" + MANY_HEADERS + "\r\n"),
    ("unknown method", 501, "BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("lower-case method", 501, "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("unknown coding", 501, POST_TO + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("HTTP/2 preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/3", 505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
]

SMUGGLED = get("/smuggled")


def refusals(program):
    with serving(program) as server:
        for name, status, text in REFUSED:
            # What follows a refused message must not be taken for a request.
            data = text.encode("latin-1") + (SMUGGLED if not text.endswith(("a", "x")) else b"")
            for before in (0, 2):
                with Client(server.port) as client:
                    try:
                        client.send(get("/healthz") * before + data)
                        for _ in range(before):
                            client.response()
                        answer = client.response()
                        tally.equal(answer.status, status, name)
                        tally.expect(answer.closes(), name + ": says Connection: close", answer.headers)
                        tally.expect(client.ends_cleanly(), name + ": the stream ends, with nothing after the refusal")
                    except (Lost, OSError) as error:
                        tally.expect(False, name, error)


def routes(program):
    with serving(program) as server, Client(server.port) as client:
        answer = client.ask(get("/"))
        tally.equal((answer.status, answer.body), (200, b"Hello, World!"), "GET /")
        date = r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
        tally.expect(re.fullmatch(date, answer.headers["date"]), "Date", answer.headers)
        answer = client.ask(get("/", method="HEAD"), to_head=True)
        tally.equal((answer.status, answer.headers["content-length"]), (200, "13"), "HEAD /")
        answer = client.ask(get("/missing", method="HEAD"), to_head=True)
        tally.equal(answer.status, 404, "HEAD of what is not there")
        tally.equal(client.ask(get("/?a=b")).status, 200, "a query on /")
        tally.equal(client.ask(get("http://localhost/healthz")).body, b"ok\n", "an absolute target")
        tally.equal(client.ask(get("/missing")).status, 404, "a path that is not there")
        answer = client.ask(get("/echo"))
        tally.equal((answer.status, answer.headers.get("allow")), (405, "POST"), "GET /echo")
        answer = client.ask(post("/", b"abc"))
        tally.equal((answer.status, answer.headers.get("allow")), (405, "GET, HEAD"), "POST /")
        tally.equal(client.ask(post("/echo", b"")).body, b"", "an empty echo")
        tally.equal(client.ask(post("/echo", b"a\r\n\r\nb\0")).body, b"a\r\n\r\nb\0", "any bytes")
        tally.equal(client.ask(post_chunked("/echo", b"abc", b"d" * 70000)).body, b"abc" + b"d" * 70000, "an echo in chunks")
        large = os.urandom(1 << 20)
        tally.equal(client.ask(post("/echo", large)).body, large, "an echo of 1 MiB")
        tally.equal(client.ask(get("/slow?ms=20")).body, b"slept 20 ms\n", "/slow")
        for wrong in ("/slow", "/slow?ms=", "/slow?ms=-1", "/slow?ms=1x", "/slow?ms=60001", "/slow?ms=4294967297"):
            tally.equal(client.ask(get(wrong)).status, 400, wrong)
        answer = client.ask(b"\r\n" + get("/"))
        tally.equal(answer.status, 200, "one empty line before a request")
        tally.expect("connection" not in answer.headers, "the connection was kept all along")
        answer = client.ask(get("/", "Connection: close"))
        tally.expect(answer.closes() and client.ends_cleanly(), "Connection: close is kept to")


def versions(program):
    with serving(program) as server:
        with Client(server.port) as client:
            answer = client.ask(b"GET / HTTP/1.0\r\n\r\n")
            tally.expect(answer.status == 200 and answer.closes(), "HTTP/1.0 closes")
            tally.expect(client.ends_cleanly(), "HTTP/1.0 ends")
        with Client(server.port) as client:
            for _ in range(3):
                answer = client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                tally.equal(answer.headers.get("connection"), "keep-alive", "HTTP/1.0 with keep-alive")
            answer = client.ask(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n")
            tally.equal(answer.status, 200, "a later HTTP/1")


def permissions(program):
    with serving(program) as server:
        with Client(server.port) as client:
            answer = client.ask(get("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST"))
            tally.equal(answer.status, 100, "100 Continue before the body")
            answer = client.ask(b"abc")
            tally.equal((answer.status, answer.body), (200, b"abc"), "the answer after it")
            answer = client.ask(post("/echo", b"abc", "Expect: 100-continue"))
            tally.equal(answer.status, 200, "no 100 Continue when the body came along")
        with Client(server.port) as client:
            answer = client.ask(get("/echo", "Expect: 100-continue", "Content-Length: 9999999", method="POST"))
            tally.equal(answer.status, 413, "a refusal instead of a permission")
        with Client(server.port) as client:
            client.send(get("/") * 2 + get("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST"))
            tally.equal([client.response().status for _ in range(3)], [200, 200, 100], "permission comes in its turn")
            client.send(b"abc")
            tally.equal(client.response().body, b"abc", "and its answer too")


def cuts(program):
    requests = post("/echo", b"hello") + post_chunked("/echo", b"wor", b"ld") + get("/healthz")
    with serving(program) as server:
        with Client(server.port) as client:
            for cut in range(1, len(requests)):
                client.send(requests[:cut])
                time.sleep(0.0005)  # lets the server read the first part alone; the answer must not depend on it
                client.send(requests[cut:])
                got = [client.response().body for _ in range(3)]
                if not tally.equal(got, [b"hello", b"world", b"ok\n"], "cut at %d" % cut):
                    return
        with Client(server.port) as client:
            for i in range(len(requests)):
                client.send(requests[i : i + 1])
            got = [client.response().body for _ in range(3)]
            tally.equal(got, [b"hello", b"world", b"ok\n"], "a byte at a time")


def pipelining(program):
    with serving(program) as server:
        with Client(server.port) as client:
            client.send(get("/") * 500)
            answers = [client.response() for _ in range(500)]
            tally.expect(all(a.status == 200 and a.body == b"Hello, World!" for a in answers), "500 requests in one segment")
        with Client(server.port) as client:
            client.send(b"".join(post("/echo", b"number %d" % i) if i % 7 else get("/slow?ms=1") for i in range(700)))
            wanted = [b"number %d" % i if i % 7 else b"slept 1 ms\n" for i in range(700)]
            tally.equal([client.response().body for _ in range(700)], wanted, "answers in the order of the requests")
        with Client(server.port) as client:
            client.send(get("/") * 10 + get("/", "Connection: close") + get("/") * 10)
            answers = [client.response() for _ in range(11)]
            tally.expect(answers[10].closes() and not answers[9].closes(), "the last answer says close")
            tally.expect(client.ends_cleanly(), "nothing is answered after Connection: close")
        with Client(server.port) as client:
            client.send(get("/", method="HEAD") * 3 + get("/"))
            answers = [client.response(to_head=True) for _ in range(3)] + [client.response()]
            tally.equal(answers[3].body, b"Hello, World!", "HEAD among others")
        with Client(server.port) as client:
            client.send(get("/") + get("/slow?ms=300") + get("/"))
            start = time.monotonic()
            client.response()
            tally.expect(time.monotonic() - start < 0.25, "an answer does not wait for a slow one behind it")
            client.response()
            client.response()

def streaming(program):
    """A client that writes much while it reads, so that both directions fill up and drain again and again."""
    with serving(program) as server:
        for _ in range(20):
            with Client(server.port) as client:
                writer = threading.Thread(target=client.send, args=(post("/echo", b"z" * 60000) * 100,), daemon=True)
                writer.start()
                try:
                    same = [client.response().body == b"z" * 60000 for _ in range(100)]
                except Lost as error:
                    tally.expect(False, "6 MB there and back", error)
                    return
                tally.expect(all(same), "6 MB there and back")
                writer.join()



def half_closed(program):
    with serving(program) as server:
        for name, data, bodies in [
            ("one request", get("/"), [b"Hello, World!"]),
            ("three requests", get("/healthz") * 3, [b"ok\n"] * 3),
            ("a slow request", get("/slow?ms=50"), [b"slept 50 ms\n"]),
            ("a body", post("/echo", b"x" * 200000), [b"x" * 200000]),
            ("none", b"", []),
        ]:
            with Client(server.port) as client:
                client.send(data)
                client.end()
                tally.equal([client.response().body for _ in bodies], bodies, "half-closed after " + name)
                tally.expect(client.ends_cleanly(), "half-closed after %s: then the end" % name)
        whole = post("/echo", b"hello")
        for cut in range(1, len(whole)):
            with Client(server.port) as client:
                client.send(whole[:cut])
                client.end()
                answer = client.response()
                tally.equal((answer.status, answer.closes()), (400, True), "half-closed inside a request, at %d" % cut)


def reset(program):
    phases = [
        ("after connect", b""),
        ("inside the request line", b"GET / HT"),
        ("inside the head", b"GET / HTTP/1.1\r\nHost: a\r\nX"),
        ("inside the body", get("/echo", "Content-Length: 100000", method="POST") + b"abc"),
        ("inside a chunk", get("/echo", "Transfer-Encoding: chunked", method="POST") + b"fff\r\nabc"),
        ("after a request", get("/")),
        ("after many requests", get("/") * 200),
        ("inside a slow request", get("/slow?ms=30")),
        ("with large answers on their way", post("/echo", b"y" * 1000000) * 3),
        ("after a refusal", b"BAD\r\n\r\n" + b"x" * 100000),
    ]
    with serving(program) as server:
        for name, data in phases:
            for pause_s in (0, 0.005):
                for _ in range(10):
                    client = Client(server.port)
                    client.socket.settimeout(0.2 if len(data) > 1000000 else LIMIT_S)
                    with contextlib.suppress(OSError):
                        client.send(data)
                    time.sleep(pause_s)  # so that the reset meets the server in different states
                    client.reset()
            with Client(server.port) as client:
                tally.equal(client.ask(get("/")).status, 200, "resets %s" % name)


def drip(client, first, piece):
    """Sends first, then piece after piece until there is an answer; returns after how many seconds that was."""
    client.send(first)
    start = time.monotonic()
    client.socket.settimeout(0.03)
    while time.monotonic() - start < 5 and not client.buffer:
        with contextlib.suppress(Lost):
            client.send(piece)
            client.more()
    client.socket.settimeout(LIMIT_S)
    return time.monotonic() - start


def slow_senders(program):
    with serving(program, "--header-ms", 400, "--body-ms", 400, "--idle-ms", 400) as server:
        for name, first, piece in [
            ("a head that drips", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x"),
            ("a body that drips", get("/echo", "Content-Length: 1000", method="POST"), b"x"),
            ("a head that stops", b"GET / HTTP/1.1\r\n", b""),
            ("a first request that is late, then drips", None, b"GET"),
        ]:
            with Client(server.port) as client:
                try:
                    if first is None:
                        time.sleep(0.2)
                    took_s = drip(client, first or b"", piece)
                    answer = client.response()
                    tally.equal((answer.status, answer.closes()), (408, True), name)
                    tally.expect(0.15 < took_s < 2, name + ": cut off in time", took_s)
                except (Lost, OSError) as error:
                    tally.expect(False, name, error)
        for name, data in [("a client that says nothing", b""), ("a client that says nothing more", get("/"))]:
            with Client(server.port) as client:
                if data:
                    client.ask(data)
                start = time.monotonic()
                tally.expect(client.ends_cleanly(), name)
                tally.expect(0.2 < time.monotonic() - start < 2, name + ": ended in time", time.monotonic() - start)
        # 30 slow clients hold up nobody.
        crowd = [Client(server.port) for _ in range(30)]
        for client in crowd:
            client.send(b"GET / HTTP/1.1\r\nX")
        with Client(server.port) as client:
            start = time.monotonic()
            client.ask(get("/"))
            tally.expect(time.monotonic() - start < 0.2, "others are served meanwhile")
        tally.expect(all(client.response().status == 408 for client in crowd), "each of 30 gets its 408")
        for client in crowd:
            client.close()
        # the end of the section waits for the lingering 408s


def slow_readers(program):
    """A reader that is slow but steady gets everything; one that stopped is cut off."""
    with serving(program, "--write-ms", 600) as server:
        body = os.urandom(1 << 20)
        with Client(server.port, receive_bytes=8192) as client:
            writer = threading.Thread(target=client.send, args=(post("/echo", body),))
            writer.start()
            got = b""
            try:
                while len(got) < len(body):
                    time.sleep(0.001)
                    data = client.socket.recv(8192)
                    if not data:
                        break
                    got += data if got else data.split(b"\r\n\r\n", 1)[1]
            except OSError as error:
                tally.expect(False, "a slow reader", error)
            writer.join()
            tally.expect(got == body, "a slow reader gets the whole answer", len(got))
        with Client(server.port, receive_bytes=8192) as client:
            client.socket.settimeout(5)
            start = time.monotonic()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    client.send(post("/echo", body))
            figures = server.wait_for_rest(limit_s=4)
            tally.equal(figures["connections_open"], 1, "a client that never reads is cut off")
            tally.expect(time.monotonic() - start < 5, "in time")


def bound(program):
    with serving(program, "--max-connections", 8) as server:
        first = [Client(server.port) for _ in range(8)]
        for client in first:
            client.send(get("/slow?ms=300"))
        late = [Client(server.port) for _ in range(16)]
        for client in late:
            client.send(get("/"))
        answers = [client.response() for client in first]
        tally.expect(all(a.status == 200 for a in answers), "those inside are answered")
        tally.expect(all(a.closes() for a in answers[:1]), "and asked to leave while others wait")
        for client in first:
            client.close()
        for client in late:  # nobody has to close for the others to be served
            try:
                tally.equal(client.response().status, 200, "those outside get their turn")
            except Lost as error:
                tally.expect(False, "those outside get their turn", error)
        for client in late:
            client.close()
        figures = server.wait_for_rest()
        tally.expect(figures["accept_failed"] == 0, "no accept failed", figures)
    with serving(program, "--max-connections", 2, "--idle-ms", 300) as server:
        idle = [Client(server.port) for _ in range(2)]
        with Client(server.port) as client:
            client.send(get("/"))
            for each in idle:
                each.close()
            tally.equal(client.response().status, 200, "two idle ones leave, the third is served")


def exhausted(program):
    with serving(program, "--max-connections", 66, "--idle-ms", 20000, files=64) as server:
        first = [Client(server.port) for _ in range(120)]
        served = []
        for client in first:
            client.send(get("/"))
        end = time.monotonic() + 2
        for client in first:
            client.socket.settimeout(max(0.01, 0.5 if len(served) < 20 else end - time.monotonic()))
            with contextlib.suppress(Lost):
                client.response()
                served.append(client)
            if time.monotonic() > end:
                break
        tally.expect(20 < len(served) < 64, "as many are served as there are descriptors", len(served))
        before_s = server.cpu_s()
        time.sleep(1)  # measures: a second without descriptors
        burnt_s = server.cpu_s() - before_s
        tally.expect(burnt_s < 0.2, "waiting for descriptors burns no processor", burnt_s)
        figures = served[0].ask(get("/stats")).body.decode()
        failed = int(re.search(r'"accept_failed": (\d+)', figures).group(1))
        tally.expect(failed > 0, "accept ran out of descriptors")
        for client in served:
            client.close()
        waiting = [client for client in first if client not in served]
        for client in waiting:
            client.socket.settimeout(LIMIT_S)
            try:
                tally.equal(client.response().status, 200, "the others are served once descriptors come back")
            except Lost as error:
                tally.expect(False, "the others are served once descriptors come back", error)
            client.close()
        server.wait_for_rest()
        # A failed accept takes nobody's place: the house holds nearly as many as before, and is not full.
        again = [Client(server.port) for _ in served]
        with contextlib.suppress(Lost):
            tally.expect(not any(client.ask(get("/")).closes() for client in again), "no place was lost")
        for client in again:
            client.close()


# --- the end ---


class Load(threading.Thread):
    """Asks on one connection after another, without a pause, until the server is gone. A request that was sent on an
    accepted connection and got no answer is lost."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.answered = 0
        self.lost = []

    def run(self):
        while True:
            try:
                client = Client(self.port)
            except OSError:
                return  # refused: nobody listens any more
            with client:
                asked = 0
                try:
                    while True:
                        asked += 1
                        answer = client.ask(get("/") if self.answered % 2 else post("/echo", b"abc"))
                        self.answered += 1
                        if answer.closes():
                            break
                except (Lost, OSError) as error:
                    # A connection that the kernel took but the server never accepted is reset with the listener: no
                    # server can help that, and its very first request shows it.
                    if asked > 1 or not isinstance(error, (ConnectionError, Lost)):
                        self.lost.append((asked, str(error)))
                    return


def idle_clients_end(clients, port):
    for client in clients:
        tally.expect(client.ends_cleanly(), "an idle connection ends")
    try:
        Client(port).close()
        tally.expect(False, "nobody is accepted any more")
    except OSError:
        tally.expect(True, "nobody is accepted any more")


def finished(name, clients, body):
    for client in clients:
        try:
            answer = client.response()
            tally.equal((answer.status, answer.body), (200, body), name + " is finished")
            tally.expect(answer.closes() and client.ends_cleanly(), name + ": then the end")
        except Lost as error:
            tally.expect(False, name + " is finished", error)


def draining(program):
    server = Server(program, "--grace-ms", 400)

    def connect(count, data):
        clients = [Client(server.port) for _ in range(count)]
        for client in clients:
            client.send(data)
        return clients

    slow_ones = connect(20, get("/slow?ms=900"))
    queued = connect(1, get("/slow?ms=700") + post("/echo", b"queued") * 3)[0]
    uploads = connect(5, get("/echo", "Content-Length: 10", method="POST") + b"01234")
    heads = connect(5, b"GET / HTTP/1.1\r\nHo")
    idle = connect(5, get("/"))
    for client in idle:
        client.response()
    silent = connect(5, b"")
    load = [Load(server.port) for _ in range(4)]
    for each in load:
        each.start()
    deadline = time.monotonic() + 5
    while sum(each.answered for each in load) < 400 or server.figures()["connections_open"] < 46:
        if time.monotonic() > deadline:
            tally.expect(False, "the clients are connected and served", server.figures())
            break
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)

    idle_clients_end(idle + silent, server.port)
    for client in uploads:
        client.send(b"56789")
    for client in heads:
        client.send(b"st: a\r\n\r\n")
    finished("a slow request", slow_ones, b"slept 900 ms\n")
    finished("an upload", uploads, b"0123456789")
    finished("a request half read", heads, b"Hello, World!")
    try:
        bodies = [queued.response().body for _ in range(4)]
        tally.equal(bodies, [b"slept 700 ms\n"] + [b"queued"] * 3, "requests that came along are answered")
    except Lost as error:
        tally.expect(False, "requests that came along are answered", error)
    for each in load:
        each.join(LIMIT_S)
    tally.equal([each.lost for each in load if each.lost], [], "requests lost under load")
    tally.expect(sum(each.answered for each in load) >= 400, "there was load")
    for client in slow_ones + uploads + heads + idle + silent + [queued]:
        client.close()
    server.ended()


def queued_clients(program):
    """Clients that the kernel connected, but that the server had not accepted yet when SIGTERM came."""
    for _ in range(5):
        server = Server(program)
        server.process.send_signal(signal.SIGSTOP)
        clients = [Client(server.port) for _ in range(40)]
        for client in clients:
            client.send(get("/"))
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        for client in clients:
            try:
                tally.equal(client.response().status, 200, "a client of the kernel's queue is answered")
                tally.expect(client.ends_cleanly(), "a client of the kernel's queue: then the end")
            except Lost as error:
                tally.expect(False, "a client of the kernel's queue is answered", error)
            client.close()
        server.ended()


def queued_behind_exhaustion(program):
    """The acceptor sleeps for want of descriptors; some come back, and SIGTERM comes before it looks again."""
    for _ in range(3):
        server = Server(program, files=48)
        served = [Client(server.port) for _ in range(30)]
        for client in served:
            client.ask(get("/"))
        queued = [Client(server.port) for _ in range(20)]
        for client in queued:
            client.send(get("/"))
        failed = 0
        while failed < 8:  # by now it sleeps for 200 ms at a time
            failed = int(re.search(rb'"accept_failed": (\d+)', served[0].ask(get("/stats")).body).group(1))
            time.sleep(0.01)
        for client in served:
            client.close()
        time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        for client in queued:
            try:
                tally.equal(client.response().status, 200, "a client behind the exhaustion is answered")
            except Lost as error:
                tally.expect(False, "a client behind the exhaustion is answered", error)
            client.close()
        server.ended()


def second_signal(program):
    server = Server(program, "--grace-ms", 50)
    clients = [Client(server.port) for _ in range(3)]
    clients[0].send(b"GET / HT")
    clients[1].send(get("/echo", "Content-Length: 10", method="POST"))
    clients[2].send(post("/echo", b"x" * 1000000))
    while server.figures()["connections_open"] < 4:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # well past the grace time
    tally.equal(server.process.poll(), None, "one SIGINT waits for those inside a request")
    server.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    server.ended()
    tally.expect(time.monotonic() - start < 3, "a second signal does not")
    for client in clients:
        client.close()


# --- programs that others wrote ---


def curl(program):
    tool = shutil.which("curl")
    if not tool:
        print("curl is not installed: its section is left out")
        return
    with serving(program) as server:
        url = "http://127.0.0.1:%d" % server.port

        def run(*arguments, data=None):
            done = subprocess.run([tool, "-sS", "--max-time", "20"] + list(arguments), input=data, capture_output=True)
            tally.equal((done.returncode, done.stderr), (0, b""), "curl " + " ".join(arguments))
            return done.stdout

        tally.equal(run(url + "/"), b"Hello, World!", "curl")
        nowhere = ("-o", "/dev/null")
        out = run("-w", "%{num_connects} ", *nowhere, url + "/", *nowhere, url + "/healthz", *nowhere, url + "/")
        tally.equal(out, b"1 0 0 ", "curl keeps the connection")
        tally.expect(run("-I", url + "/").startswith(b"HTTP/1.1 200 OK\r\n"), "curl -I")
        tally.equal(run("--http1.0", url + "/"), b"Hello, World!", "curl --http1.0")
        large = os.urandom(1 << 20)
        tally.equal(run("--data-binary", "@-", url + "/echo", data=large), large, "curl sends 1 MiB and asks permission")
        tally.equal(run("-H", "Expect: 100-continue", "-d", "abc", url + "/echo"), b"abc", "curl with Expect")
        upload = ("--data-binary", "@-", url + "/echo")
        out = run("-H", "Transfer-Encoding: chunked", *upload, data=large[:300000])
        tally.equal(out, large[:300000], "curl in chunks")
        status = (*nowhere, "-w", "%{http_code}")
        tally.equal(run(*status, *upload, data=large * 3), b"413", "curl sends too much and hears so")
        tally.equal(run(*status, url + "/" + "a" * 9000), b"414", "curl with a long path")


def wrk(program):
    tool = shutil.which("wrk")
    if not tool:
        print("wrk is not installed: its section is left out")
        return
    with serving(program) as server:
        for connections, seconds in ((64, 2), (512, 5)):
            done = subprocess.run(
                [tool, "-t1", "-c%d" % connections, "-d%ds" % seconds, "http://127.0.0.1:%d/" % server.port],
                capture_output=True,
                text=True,
            )
            name = "wrk, %d connections" % connections
            tally.equal(done.returncode, 0, name)
            tally.expect("Socket errors" not in done.stdout, name + ": no socket errors", done.stdout)
            tally.expect("Non-2xx" not in done.stdout, name + ": every answer is 200", done.stdout)
            rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
            tally.expect(rate and float(rate.group(1)) > 500, name + ": requests were served", done.stdout)
            print("    %s: %s requests/s" % (name, rate.group(1) if rate else "no"))


SECTIONS = [
    refusals,
    routes,
    versions,
    permissions,
    cuts,
    pipelining,
    streaming,
    half_closed,
    reset,
    slow_senders,
    slow_readers,
    bound,
    exhausted,
    draining,
    queued_clients,
    queued_behind_exhaustion,
    second_signal,
    curl,
    wrk,
]


def main():
    arguments = sys.argv[1:]
    only = ""
    if arguments[:1] == ["--only"]:
        only = arguments[1]
        arguments = arguments[2:]
    if not arguments:
        print(__doc__)
        return 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    for argument in arguments:
        label, program = argument.split("=", 1)
        for section in SECTIONS:
            if only not in section.__name__:
                continue
            tally.section = "%s, %s" % (label, section.__name__)
            before = tally.passed, tally.failed
            start = time.monotonic()
            try:
                section(os.path.abspath(program))
            except Exception as error:  # a section that breaks off has failed, and the next one still runs
                tally.expect(False, "the section ran to its end", "%s: %s" % (type(error).__name__, error))
            print(
                "%-24s %4d passed %3d failed  %5.1f s"
                % (tally.section, tally.passed - before[0], tally.failed - before[1], time.monotonic() - start),
                flush=True,
            )
    print("%d passed, %d failed" % (tally.passed, tally.failed))
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
