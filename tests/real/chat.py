#!/usr/bin/env python3
"""Talks to the chat server example as real clients do, well-behaved ones and others, and stops it with signals.

    chat.py [--only WORD] LABEL=PROGRAM...

PROGRAM is a built examples/chat_server.cpp; each section starts its own. What is looked at: every line reaches everybody,
those of one speaker in their order; a client that does not read is disconnected, and nobody waits for it; a reset, an end in
the middle of a line, and a line without end are the trouble of one client; on SIGTERM everybody hears goodbye, also while
one does not read; and when all have left, that the server's descriptors are as many as before.
"""
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from http_conformance import LIMIT_S, Tally

tally = Tally()


class Client:
    def __init__(self, port, receive_bytes=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def read(self):
        """The next line, or None at the end."""
        while b"\n" not in self.buffer:
            more = self.socket.recv(65536)
            if not more:
                return None
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode(errors="replace")

    def read_until(self, wanted):
        """The lines before the one that is wanted."""
        lines = []
        while True:
            line = self.read()
            if line is None:
                raise EOFError("the end came before %r, after %r" % (wanted, lines[-3:]))
            if line == wanted:
                return lines
            lines.append(line)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Server:
    def __init__(self, program):
        self.process = subprocess.Popen([program, "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1])
        self.descriptors = self.count_descriptors()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def client(self, name, receive_bytes=0):
        """Comes with a name of its own, and has heard it."""
        client = Client(self.port, receive_bytes)
        welcome = client.read()
        number = welcome.split(";")[0].rsplit(" ", 1)[1]
        client.say("/nick " + name)
        client.read_until("* guest %s is now %s" % (number, name))
        return client

    def count_descriptors(self):
        try:
            return len(os.listdir("/proc/%d/fd" % self.process.pid))
        except OSError:
            return 0

    def expect_nothing_left(self):
        """Connections end a little after their clients."""
        end = time.monotonic() + LIMIT_S
        while self.count_descriptors() > self.descriptors and time.monotonic() < end:
            time.sleep(0.01)
        tally.equal(self.count_descriptors(), self.descriptors, "as many descriptors as before")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def expect_ended(self):
        try:
            status = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            status = "still running"
            self.process.kill()
        tally.equal(status, 0, "ended by itself")
        tally.equal(self.process.stdout.read(), "the server has ended\n", "said so")


GOODBYE = "* the server closes, goodbye"


def everybody_hears_everything(program):
    """Eight guests speak at the same time; each hears all of it, and each speaker's lines in their order."""
    guests, lines = 8, 20
    with Server(program) as server:
        clients = [server.client("c%d" % i) for i in range(guests)]
        # All that is said is less than a queue takes: however late one is, nobody is dropped.
        heard = [[] for _ in clients]

        def talk(i):
            for n in range(lines):
                line = "%d" % n
                clients[i].say(line)
                heard[i] += clients[i].read_until("<c%d> %s" % (i, line)) + ["<c%d> %s" % (i, line)]

        threads = [threading.Thread(target=talk, args=(i,)) for i in range(guests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, client in enumerate(clients):
            client.say("the end")
        for i, client in enumerate(clients):
            while sum(line.endswith("> the end") for line in heard[i]) < guests:
                heard[i].append(client.read())
        for i in range(guests):
            for speaker in range(guests):
                mark = "<c%d> " % speaker
                said = [line[len(mark) :] for line in heard[i] if line.startswith(mark)]
                wanted = [str(n) for n in range(lines)] + ["the end"]
                tally.equal(said, wanted, "c%d hears c%d" % (i, speaker))
        for client in clients:
            client.socket.close()
        server.expect_nothing_left()
        server.stop()
        server.expect_ended()


def slow_guest(program):
    """One guest never reads. The others go on, until its queue is full and after that."""
    with Server(program) as server:
        with server.client("ann") as ann, server.client("bob") as bob, server.client("slow", 4096) as slow:
            ann.read_until("* guest 3 is now slow")
            bob.read_until("* guest 3 is now slow")
            gone = "* slow has left: too slow"
            after = 0
            longest = 0.0
            was_dropped = False
            for n in range(2000):
                start = time.monotonic()
                line = "%d %s" % (n, "x" * 900)
                ann.say(line)
                ann_lines = ann.read_until("<ann> " + line)
                bob_lines = bob.read_until("<ann> " + line)
                longest = max(longest, time.monotonic() - start)
                was_dropped = was_dropped or gone in ann_lines
                if gone in ann_lines:
                    tally.expect(gone in bob_lines, "both hear that it is gone")
                after += was_dropped
                if after == 50:
                    break
            tally.expect(was_dropped, "the slow one is dropped")
            tally.expect(longest < LIMIT_S / 4, "nobody waits", "%.1f s for a line" % longest)
            # What was on its way still comes; then it is over.
            try:
                while slow.read() is not None:
                    pass
                tally.expect(True, "the slow one is disconnected")
            except ConnectionResetError:
                tally.expect(True, "the slow one is disconnected")
            except TimeoutError:
                tally.expect(False, "the slow one is disconnected")
        server.expect_nothing_left()
        server.stop()
        server.expect_ended()


def rude_guests(program):
    """What a client does wrong is its own trouble."""
    with Server(program) as server, server.client("ann") as ann:
        for round_number in range(20):
            name = "r%d" % round_number
            server.client(name).reset()
            ann.read_until("* %s has left" % name)

            name = "h%d" % round_number
            half = server.client(name)
            half.socket.sendall(b"half a li")
            half.socket.close()
            ann.read_until("* %s has left" % name)

            name = "e%d" % round_number
            endless = server.client(name)
            endless.socket.sendall(b"y" * 5000)
            ann.read_until("* %s has left" % name)
            endless.socket.close()
        for data in (b"\x00\xff\xfe\n", b"\r\n\n\r\n", b"/nick \n", b"/nick", b"\n"):
            with Client(server.port) as odd:
                odd.read()
                odd.socket.sendall(data)
        with Client(server.port) as windows:
            windows.read()
            windows.socket.sendall(b"hello\r\n")
            line = windows.read()
            while not line.startswith("<"):
                line = windows.read()
            tally.expect(line.endswith("> hello"), "a carriage return is no part of the line", line)
        ann.say("still here")
        ann.read_until("<ann> still here")
        tally.expect(True, "the room goes on")
        ann.socket.close()
        server.expect_nothing_left()
        server.stop()
        server.expect_ended()


def comes_and_goes(program):
    """Many come and leave at the same time."""
    with Server(program) as server:
        failures = []

        def visit(worker):
            try:
                for n in range(25):
                    with Client(server.port) as client:
                        if not client.read().startswith("* you are guest "):
                            failures.append("no welcome")
                        client.say("hello")
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=visit, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tally.equal(failures, [], "200 visits")
        server.expect_nothing_left()
        server.stop()
        server.expect_ended()


def goodbye(program):
    """On a signal everybody hears goodbye, then the end, whatever they are doing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with Server(program) as server:
            clients = [server.client("c%d" % i) for i in range(10)]
            clients[0].socket.sendall(b"half a li")
            with Client(server.port) as fresh:
                fresh.read()
                server.stop(number)
                for client in clients + [fresh]:
                    client.read_until(GOODBYE)
                    tally.equal(client.read(), None, "the end after the goodbye")
            server.expect_ended()
            for client in clients:
                client.socket.close()


def goodbye_to_one_that_does_not_read(program):
    with Server(program) as server, server.client("ann") as ann, server.client("slow", 4096) as slow:
        ann.read_until("* guest 2 is now slow")
        for n in range(150):  # fills the socket, but not the queue
            line = "%d %s" % (n, "x" * 900)
            ann.say(line)
            ann.read_until("<ann> " + line)
        server.stop()
        tally.equal(ann.read_until(GOODBYE), [], "goodbye to who reads")
        tally.equal(ann.read(), None, "the end after it")
        server.expect_ended()
        slow.socket.close()


def second_signal(program):
    with Server(program) as server, server.client("ann") as ann, server.client("slow", 4096):
        ann.read_until("* guest 2 is now slow")
        for n in range(150):
            line = "%d %s" % (n, "x" * 900)
            ann.say(line)
            ann.read_until("<ann> " + line)
        server.stop()
        ann.read_until(GOODBYE)
        server.stop()
        status = server.process.wait(LIMIT_S)
        tally.expect(status in (0, -signal.SIGTERM), "the second signal ends it", status)


SECTIONS = [
    everybody_hears_everything,
    slow_guest,
    rude_guests,
    comes_and_goes,
    goodbye,
    goodbye_to_one_that_does_not_read,
    second_signal,
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
    for argument in arguments:
        label, program = argument.split("=", 1)
        for section in SECTIONS:
            if only not in section.__name__:
                continue
            tally.section = "chat %s, %s" % (label, section.__name__)
            before = tally.passed, tally.failed
            start = time.monotonic()
            try:
                section(os.path.abspath(program))
            except Exception as error:  # a section that breaks off has failed, and the next one still runs
                tally.expect(False, "the section ran to its end", "%s: %s" % (type(error).__name__, error))
            print(
                "%-50s %4d passed %3d failed  %5.1f s"
                % (tally.section, tally.passed - before[0], tally.failed - before[1], time.monotonic() - start),
                flush=True,
            )
    print("%d passed, %d failed" % (tally.passed, tally.failed))
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
