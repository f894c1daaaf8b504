"""The load: wrk or oha on the load CPU, and idle connections held by this program."""

import contextlib
import json
import selectors
import socket
import subprocess
import time

from .processes import Failure, confine, connections_opened
from .proxies import POLICIES, program

# Prints what wrk knows at its end as JSON. It hooks nothing that runs for each request, so wrk stays as fast as without it.
WRK_SCRIPT = """\
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d,' ..
    '"p50_us":%.0f,"p99_us":%.0f}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, e.connect, e.read, e.write, e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


def check(name, port, origin_names):
    """Complains unless the proxy answers well, reaches the origins, and closes when it is asked to."""
    seen = set()
    for _ in range(4 * len(origin_names)):
        head, _, body = ask(name, port).partition("\r\n\r\n")
        seen.add((head[9:12], body.strip()))
    wanted = {("200", f"hello from {origin}") for origin in origin_names}
    # By chance or by the client's address, a policy may leave an origin out.
    if not (seen <= wanted if name in POLICIES else seen == wanted):
        raise Failure(f"{name} should answer from each origin in turn, but answered {sorted(seen)}")


def ask(name, port):
    """The answer to one request on a connection that the proxy is to close after it."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            while piece := client.recv(4096):
                answer += piece
    except OSError as error:
        raise Failure(f"{name} does not answer, or does not close when it is told to: {error!r}, after {answer!r}") from error
    return answer.decode(errors="replace")


def wrk(case, port, seconds, cpu, directory):
    """One run of wrk: its figures."""
    return wrk_figures(run(wrk_command(case, port, seconds, directory), seconds, cpu))


def wrk_command(case, port, seconds, directory, timeout_seconds=10):
    """What starts wrk, whose script is written; an answer that takes longer than the timeout is an error."""
    script = directory / "done.lua"
    script.write_text(WRK_SCRIPT)
    command = [program("wrk"), "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", f"{timeout_seconds}s", "--latency"]
    command += ["-s", str(script)] + (["-H", "Connection: close"] if case.closing else [])
    return [*command, f"http://127.0.0.1:{port}{case.path}"]


def wrk_figures(output):
    """What wrk's script has printed."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Failure(f"wrk gave no result\n{output}")
    result = json.loads(line.removeprefix("RESULT "))
    errors = {kind: result[kind] for kind in ("connect", "read", "write", "timeout", "status") if result[kind]}
    return {**figures(result["requests"], result["seconds"], result["p50_us"], result["p99_us"]), "errors": errors}


def oha(case, port, seconds, cpu, _directory):
    """One run of oha: its figures."""
    command = [program("oha"), "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(case.connections)]
    command += ["--disable-keepalive"] if case.closing else []
    done = json.loads(run([*command, f"http://127.0.0.1:{port}{case.path}"], seconds, cpu))
    statuses = done["statusCodeDistribution"]
    errors = {f"status {code}": count for code, count in statuses.items() if not code.startswith("2")}
    # Requests that run when the time is up are no failures of anyone's.
    errors |= {kind: n for kind, n in done["errorDistribution"].items() if "deadline" not in kind}
    latency = done["latencyPercentiles"]
    requests = sum(statuses.values())
    return {
        **figures(requests, done["summary"]["total"], latency["p50"] * 1e6, latency["p99"] * 1e6),
        "errors": errors,
    }


def figures(requests, seconds, p50_us, p99_us):
    return {
        "requests": requests,
        "seconds": seconds,
        "requests_per_second": requests / max(seconds, 1e-9),
        "p50_us": p50_us,
        "p99_us": p99_us,
    }


def run(command, seconds, cpu):
    """Runs a load generator on its CPU; returns its output."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 30, preexec_fn=lambda: confine(cpu), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{command[0]} did not end in time") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} failed\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(process, case, port, seconds, cpu, directory, generator):
    """One measured run: the generator's figures and the proxy's CPU per request in microseconds."""
    generate = {"wrk": wrk, "oha": oha}[generator]
    generate(case, port, 1, cpu, directory)  # warm-up: pools filled, memory touched
    opened = connections_opened()
    before = process.cpu_seconds()
    result = generate(case, port, seconds, cpu, directory)
    after = process.cpu_seconds()
    check_result(process, case, result)
    result |= costs(result["requests"], before, after)
    if case.closing:
        # The relay opens a connection to the origin for each, the proxies keep theirs.
        check_closing(process.name, result["requests"], connections_opened() - opened)
    result["cpu_share"] = result["cpu_us"] * result["requests"] / 1e6 / result["seconds"]
    return result


def costs(requests, before, after):
    """CPU microseconds of a request, in all and in user mode, from two readings of `Process.cpu_seconds`."""
    user, system = (later - earlier for later, earlier in zip(after, before))
    return {"cpu_us": (user + system) / requests * 1e6, "user_us": user / requests * 1e6}


def check_result(process, case, result):
    """Complains of a run without requests, or with any error."""
    process.check_alive()
    if result["errors"] or result["requests"] == 0:
        raise Failure(
            f"{process.name}, {case.name}: {result['requests']} requests, errors {result['errors']}\n{process.last_words()}"
        )


def check_closing(name, requests, opened):
    """A new connection for each request means that as many connections were opened: to the client, and to the origin for the relay."""
    wanted = 2 * requests if name == "relay" else requests
    if not 0.97 * wanted <= opened <= 1.03 * wanted + 2000:
        raise Failure(f"{name}: {requests} requests opened {opened} connections, where about {wanted} were to be expected")


def idle_bytes(process, port, count):
    """Memory that an idle client connection costs the proxy, in bytes: each has made one request before."""
    before = process.memory_bytes()
    with contextlib.ExitStack() as held:
        for start in range(0, count, 64):
            open_and_ask(held, process.name, port, min(64, count - start))
        time.sleep(1)
        process.check_alive()
        return (process.memory_bytes() - before) / count


def open_and_ask(held, name, port, count):
    """Opens connections at once, makes a request on each, and reads the answers."""
    waiting = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            selector.register(client, selectors.EVENT_READ)
            waiting[client] = b""
        deadline = time.monotonic() + 10
        while waiting:
            if time.monotonic() > deadline:
                raise Failure(f"{name}: {len(waiting)} of {count} idle connections got no answer in 10 seconds")
            for key, _ in selector.select(1):
                client = key.fileobj
                piece = client.recv(4096)
                if not piece:
                    raise Failure(f"{name} closed a connection that was to stay: {waiting[client]!r}")
                waiting[client] += piece
                if is_whole_answer(waiting[client]):
                    selector.unregister(client)
                    del waiting[client]


def is_whole_answer(answer):
    """Whether the origin's text has come to its end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200 ") and body.startswith(b"hello from ") and body.endswith(b"\n")
