"""How requests are shared: evenly, around a slow replica, and what happens to too many."""

from __future__ import annotations

import time
from functools import partial

from bench.faults.lab import METHODS, Lab
from bench.faults.rows import Book
from bench.load import Load, Report
from bench.stack import CLIENTS, RECONNECTING

REQUESTS = 3000
EVEN_RATE = 150
MOST_REPLICAS = 8
SLOW_S = 0.02
ROUNDS = 3
ROUND_S = 6
BUSY_CLIENTS = 12
OVERLOAD = 3
OVERLOAD_S = 20
CROWD = 200

ROUND_ROBIN = """\
include /etc/nginx/modules-enabled/*.conf;
worker_processes auto;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
    client_body_temp_path /tmp/client;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    access_log /dev/stdout combined buffer=64k flush=1s;
    upstream app {
SERVERS
        keepalive 32;
    }
    server {
        listen 80;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location / { proxy_pass http://app; }
    }
}
"""


def test_evenness(lab: Lab, book: Book) -> None:
    """Equal replicas get equal shares, however many there are."""
    with book.row(f"{REQUESTS} requests to 1 to {MOST_REPLICAS} replicas") as row:
        for number in range(1, MOST_REPLICAS + 1):
            lab.host.check_output(f"cd {lab.stack.directory} && docker compose up -d --scale app={number} app")
            lab.stack.wait_for("all of them answer", partial(_all_answer, lab, number))
            with Load(lab.url, rate=EVEN_RATE, clients=CLIENTS, reconnecting=RECONNECTING, methods=METHODS) as load:
                time.sleep(REQUESTS / EVEN_RATE)
            report = load.report()
            shares = [seen.count for seen in report.containers.values()]
            row.holds(f"{number} replicas: all answer, none fails", len(shares) == number and not report.failures())
            row.most(f"{number} replicas: largest ÷ smallest share", max(shares) / min(shares), 1.05)


def _all_answer(lab: Lab, number: int) -> bool:
    return len(lab.stack.ask(50)) == number


def _round_robin(lab: Lab) -> str:
    """Write the configuration of an nginx that knows a plain list of the replicas."""
    replicas = lab.stack.inspect("app")
    (network,) = replicas[0]["NetworkSettings"]["Networks"]
    addresses = [one["NetworkSettings"]["Networks"][network]["IPAddress"] for one in replicas]
    (port,) = (name.partition("=")[2] for name in replicas[0]["Config"]["Env"] if name.startswith("PORT="))
    servers = "\n".join(f"        server {address}:{port};" for address in sorted(addresses))
    return ROUND_ROBIN.replace("SERVERS", servers)


def test_slow_replica(faulty: Lab, book: Book) -> None:
    """Round robin sends as many requests to the slow replica as to the others, and waits for each."""
    with book.row(f"one replica {SLOW_S * 1000:g} ms slower") as row:
        slow = faulty.ids()[0]
        faulty.host.check_output(f"docker exec {slow} sh -c 'echo {SLOW_S} > /dev/shm/slow'")
        ours, plain = [], []
        with faulty.beside_nginx(_round_robin(faulty)) as url:
            for _ in range(ROUNDS):
                ours.append(faulty.throughput(faulty.url, BUSY_CLIENTS, ROUND_S))
                plain.append(faulty.throughput(url, BUSY_CLIENTS, ROUND_S))
        faulty.host.check_output(f"docker exec {slow} rm /dev/shm/slow")
        row.figure("requests/s", ", ".join(f"{rate:.0f}" for rate in ours))
        row.figure("requests/s, round robin", ", ".join(f"{rate:.0f}" for rate in plain))
        row.least("throughput ÷ round robin's", sum(ours) / sum(plain), 1.8)


def _unexpected(report: Report) -> int:
    allowed = {"status_429", "status_503"}
    return sum(count for kind, count in report.failures().items() if kind not in allowed)


def test_overload(lab: Lab, book: Book) -> None:
    """A client that cannot be served gets its answer at once, and the others do not suffer for long."""
    with book.row(f"overload at {OVERLOAD} x capacity for {OVERLOAD_S} s") as row:
        capacity = lab.throughput(lab.url, BUSY_CLIENTS, ROUND_S)
        with Load(lab.url, rate=OVERLOAD * capacity, clients=CROWD, reconnecting=RECONNECTING, methods=METHODS) as load:
            time.sleep(OVERLOAD_S)
        with Load(lab.url, rate=capacity / 4, clients=CLIENTS, reconnecting=RECONNECTING, methods=METHODS) as calm:
            time.sleep(10)
        report, after = load.report(), calm.report()
        row.figure("capacity (requests/s)", capacity)
        row.figure("requests", report.planned)
        row.figure("answered", report.ok)
        row.figure("kinds of failure", str(report.failures() or "none"))
        row.most("failed otherwise than with 429 or 503", _unexpected(report), 0)
        row.all_sent(report)
        row.holds("some were refused", any(status in report.statuses for status in ("429", "503")))
        row.most("p99 of the refusals (s)", report.rejection_latency.p99, 0.1)
        row.figure("p99 of the answers (s)", report.latency.p99)
        late = sum(sum(second.failed.values()) for second in after.seconds if second.second >= 5)
        row.most("failed from 5 s after the end on", late, 0)
        row.figure("p99 in the 10 s after (ms)", after.latency.p99 * 1000)
