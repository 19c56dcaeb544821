# bench/measure.py - runs one contender once and returns its figures.
#
# Six ways: a program that measures itself and prints `name value unit`; one that prints every sample; one that is watched while
# it idles; an echo server driven by our epoll client; an HTTP server driven by wrk, as hard as it can; one driven by oha, at a
# constant rate. A server's own share of the CPU is read from /proc before and after.
import json
import math
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

import build
import weights

LIMIT_S = 180


class Failed(Exception):
    pass


def describe_exit(code, stderr):
    words = stderr.strip().splitlines()
    cause = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return cause + (f": {words[-1]}" if words else "")


def run_to_end(command, affinity=None, limit_s=LIMIT_S):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, preexec_fn=pin(affinity))
    except subprocess.TimeoutExpired:
        raise Failed(f"not ended after {limit_s} s") from None
    if done.returncode != 0:
        raise Failed(describe_exit(done.returncode, done.stderr))
    return done.stdout


def pin(cpus):
    return (lambda: os.sched_setaffinity(0, cpus)) if cpus else None


def printed_figures(text):
    figures = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            try:
                figures[words[0]] = float(words[1])
            except ValueError:
                pass
    return figures


def program(command, settings):
    return printed_figures(run_to_end(command, limit_s=settings.get("limit_s", LIMIT_S)))


PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "worst": 1}


# The least sample that as large a share of all is not above: always one that was measured, never one in between.
def percentile(ordered, share):
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


def latency(command, settings):
    text = run_to_end(command, limit_s=settings.get("limit_s", LIMIT_S))
    samples_us = sorted(float(line.split()[1]) / 1000 for line in text.splitlines() if line.startswith("sample "))
    if len(samples_us) < settings.get("samples", 1):
        raise Failed(f"gave {len(samples_us)} samples of {settings['samples']}")
    return {name: percentile(samples_us, share) for name, share in PERCENTILES.items()}


# --- what /proc says ---

def family(pid):
    members = [pid]
    for member in members:
        for task in os.listdir(f"/proc/{member}/task"):
            with open(f"/proc/{member}/task/{task}/children", encoding="ascii") as file:
                members += [int(child) for child in file.read().split()]
    return members


def cpu_seconds(pid):
    ticks = 0
    for member in family(pid):
        with open(f"/proc/{member}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# Over all threads: how often one was given a processor, and for how many nanoseconds.
def times_scheduled(pid):
    switches = spent_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii", errors="replace") as file:
            switches += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            spent_ns += int(file.read().split()[0])
    return switches, spent_ns


# --- processes that stay until they are stopped ---

def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Running:
    def __init__(self, command, affinity=None, reads_output=False):
        # A file, not a pipe: nobody reads it while the server runs, and a full pipe would stop it.
        self.complaints = tempfile.TemporaryFile("w+")
        output = subprocess.PIPE if reads_output else subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=output, stderr=self.complaints, text=True,
                                        preexec_fn=pin(affinity))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.complaints.close()

    def must_be_alive(self):
        code = self.process.poll()
        if code is not None:
            self.complaints.seek(0)
            raise Failed(describe_exit(code, self.complaints.read()))

    def wait_for_port(self, port):
        for _ in range(500):
            self.must_be_alive()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise Failed("does not listen after 10 s")


def idle(command, settings):
    with Running(command, reads_output=True) as server:
        if server.process.stdout.readline().strip() != "ready":
            server.process.wait(10)
            server.must_be_alive()
        time.sleep(1)
        switches, spent_ns = times_scheduled(server.process.pid)
        time.sleep(settings["seconds"])
        server.must_be_alive()
        after = times_scheduled(server.process.pid)
    return {"switches": after[0] - switches, "cpu": (after[1] - spent_ns) / 1000}


# The server has the first processor, the client the last: neither is moved about, and the client never sleeps.
def echo(command, settings):
    port = free_port()
    cpus = sorted(os.sched_getaffinity(0))
    with Running(command + ["--port", str(port)], {cpus[0]}) as server:
        server.wait_for_port(port)
        client = [build.program("floor/echo_client", ()), "--port", str(port),
                  "--connections", str(settings["connections"]), "--count"]
        run_to_end(client + [str(max(1000, settings["count"] // 10))], {cpus[-1]})
        before = cpu_seconds(server.process.pid)
        figures = printed_figures(run_to_end(client + [str(settings["count"])], {cpus[-1]}))
        server.must_be_alive()
        spent = cpu_seconds(server.process.pid) - before
    # The client's own warm-up is a tenth of its count, and one for each connection.
    figures["cpu"] = spent * 1e9 / (settings["count"] * 1.1 + settings["connections"])
    return figures


NGINX = """daemon off; master_process on; user root; worker_processes {workers};
pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=4096; default_type text/plain; location / {{ return 200 "Hello, World!"; }} }} }}
"""


def nginx_command(command, port):
    folder = os.path.join(build.OUT, "nginx")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "nginx.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(NGINX.format(workers=command[command.index("--workers") + 1], port=port, folder=folder))
    return [command[0], "-c", path, "-p", folder, "-e", os.path.join(folder, "error.log")]


def http_server(command, port):
    is_nginx = os.path.basename(command[0]) == "nginx"
    return Running(nginx_command(command, port) if is_nginx else command + ["--port", str(port)])


def wrk(port, connections, seconds):
    text = run_to_end(["wrk", "-t2", f"-c{connections}", f"http://127.0.0.1:{port}/", "-d", str(seconds)])
    for trouble in re.findall(r"(?:Socket errors|Non-2xx).*", text):
        raise Failed("wrk: " + trouble)
    return text


def requests_a_second(text):
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))


def http(command, settings):
    port = free_port()
    with http_server(command, port) as server:
        server.wait_for_port(port)
        run_to_end(["wrk", "-t2", f"-c{settings['connections']}", f"http://127.0.0.1:{port}/", "-d", "1"])
        before = cpu_seconds(server.process.pid)
        text = wrk(port, settings["connections"], settings["seconds"])
        server.must_be_alive()
        spent = cpu_seconds(server.process.pid) - before
    answered = int(re.search(r"(\d+) requests in", text).group(1))
    if answered == 0:
        raise Failed("not one request was answered")
    return {"requests": requests_a_second(text), "cpu": spent * 1e6 / answered}


# Half of what the weakest of them does when wrk drives it, measured now: the rate at which all are then driven.
def choose_rate(commands, settings, give_up):
    capacities = {}
    for name, command in commands.items():
        port = free_port()
        try:
            with http_server(command, port) as server:
                server.wait_for_port(port)
                capacities[name] = requests_a_second(wrk(port, settings["connections"], settings["wrk_seconds"]))
        except (Failed, OSError) as problem:
            give_up(name, str(problem))
    settings["capacities"] = capacities
    settings["rate"] = int(min(capacities.values(), default=0) / 2)
    print(f"    {settings['rate']:,} requests a second, half of what {min(capacities, key=capacities.get, default='nobody')} can")


# Requests begin at a constant rate whether or not the last ones have been answered; a latency counts from the moment in
# which the request was due, so that one that the generator sent late is not flattered.
def http_latency(command, settings):
    port = free_port()
    with http_server(command, port) as server:
        server.wait_for_port(port)
        load = [build.program("oha", ()), "--no-tui", "--output-format", "json", "--latency-correction",
                "-c", str(settings["connections"]), "-q", str(settings["rate"])]
        address = f"http://127.0.0.1:{port}/"
        run_to_end(load + ["-z", "1s", address])
        figures = oha_figures(json.loads(run_to_end(load + ["-z", f"{settings['seconds']}s", address])), settings["rate"])
        server.must_be_alive()
    return figures


def oha_figures(said, rate):
    wrong = {code: count for code, count in said["statusCodeDistribution"].items() if code != "200"}
    # Those that the end of the run cut off are no failures.
    wrong.update({why: count for why, count in said["errorDistribution"].items() if "deadline" not in why})
    if wrong:
        raise Failed("oha: " + ", ".join(f"{count} times {what}" for what, count in wrong.items()))
    if said["summary"]["requestsPerSec"] < 0.95 * rate:
        raise Failed(f"oha: only {said['summary']['requestsPerSec']:.0f} of {rate} requests a second could be sent")
    times = said["latencyPercentiles"]
    return {"p50": times["p50"] * 1e6, "p99": times["p99"] * 1e6, "p99_9": times["p99.9"] * 1e6}


RUNNERS = {"program": program, "latency": latency, "idle": idle, "echo": echo, "http": http, "http_latency": http_latency,
           "compile": weights.compile_time, "size": weights.size}
TOOLS = {"http": ("wrk",), "http_latency": ("wrk", "oha")}  # what drives the contenders of a runner
PREPARATIONS = {"http_latency": choose_rate}                # done once before its contenders take turns
