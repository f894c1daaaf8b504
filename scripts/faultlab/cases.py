"""The cases: a fault, how it is taken back, and what must hold."""

import dataclasses
import email.utils
import signal
import socket
import struct
import time
from typing import Callable, Optional

from . import lab as labs
from .load import Connection
from .proxies import Settings

DAY = 86400


@dataclasses.dataclass
class Expected:
    """What must hold. Times are seconds; `None` is not judged."""

    # GETs without a 200, and POSTs.
    gets: Optional[int] = 0
    posts: Optional[int] = 0
    # After the fault began nothing is lost any more.
    settled: Optional[float] = None
    # After the fault ended the server is asked again.
    back: Optional[float] = None
    # States of server a on the status page that must be seen.
    states: frozenset = frozenset()


@dataclasses.dataclass
class Case:
    """One fault."""

    name: str
    what: str
    begin: Callable
    end: Callable = lambda lab: None
    expected: Expected = dataclasses.field(default_factory=Expected)
    settings: Settings = Settings()
    # With the fault, and after it.
    seconds: tuple = (2.5, 3.0)
    # A short run has it too.
    quick: bool = False
    # What else must hold, after the run: gives misses.
    judge: Callable = lambda lab, run: []
    # What Ringlane's status page must say then: gives misses.
    page: Optional[Callable] = None
    environment: Callable = lambda lab: {}
    delay_ms: int = 0
    # Only debug builds of Ringlane have what the case asks for.
    debug: bool = False


def mode(text):
    """Sets server a's mode."""
    return lambda lab: lab.origins["a"].mode(text)


OK = mode("ok")


def kill(lab):
    """SIGKILL for server a."""
    lab.origins["a"].kill()


def start(lab):
    """Server a is started again."""
    lab.origins["a"].start()


def pause(lab):
    """SIGSTOP."""
    lab.origins["a"].signal(signal.SIGSTOP)


def resume(lab):
    """SIGCONT."""
    lab.origins["a"].signal(signal.SIGCONT)


def black_hole(lab):
    """Nothing reaches server a any more, and nothing says so."""
    lab.network.drop("origin", "input", f"tcp dport {labs.ORIGIN_PORTS['a']}")


def open_again(lab):
    """No more drops."""
    lab.network.clear()


def flap(lab):
    """Server a goes and comes, some times a second."""
    for _ in range(6):
        lab.origins["a"].mode("refuse")
        time.sleep(0.2)
        lab.origins["a"].mode("ok")
        time.sleep(0.2)


def lose(percent):
    """Loses segments on both links, in both directions."""

    def begin(lab):
        for link in ("p0", "p1"):
            lab.network.drop("proxy", "input", f"iifname {link} meta l4proto tcp numgen random mod 100 < {percent}")
            lab.network.drop("proxy", "output", f"oifname {link} meta l4proto tcp numgen random mod 100 < {percent}")

    return begin


# Clients that go -------------------------------------------------------------------------------------------------------------------

WAITING, UPLOADING, IDLE, TUNNELS = 8, 6, 6, 6
LONG_WAIT = b"GET /wait/60000 HTTP/1.1\r\nHost: a.example\r\n\r\n"
HALF_UPLOAD = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\nhalf"
TUNNEL = b"GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
PATIENT = Settings(response="30s")
# Nothing but the kernel's questions finds a client that has vanished: the first after a second, four of them, a second apart.
ASKING = Settings(client="30s", response="30s", tunnel="30s", keepalive="1s", keepalive_interval="1s")


def crowd(lab):
    """Clients that wait for an answer, upload, or do nothing after a request; from an address of their own."""

    def connect():
        sockets = []
        for number in range(WAITING + UPLOADING + IDLE):
            one = socket.create_connection((labs.PROXY, labs.PORT), timeout=5, source_address=(labs.GOING, 0))
            if number < WAITING:
                one.sendall(LONG_WAIT)
            elif number < WAITING + UPLOADING:
                one.sendall(HALF_UPLOAD)
            else:
                one.sendall(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
                one.recv(4096)
            sockets.append(one)
        return sockets

    lab.crowd = lab.network.call("client", connect)
    arriving = WAITING + (UPLOADING if lab.kind.streams_uploads else 0)
    wait_until(lambda: busy(lab) >= arriving, 3, "the crowd's requests are under way")


def busy(lab):
    """Requests that servers work on and whose connections are open, as the servers see it."""
    return sum(origin.count()["busy"] for origin in lab.origins.values())


def wait_until(happened, seconds, what):
    """How long it took."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > seconds:
            raise labs.Failure(f"did not happen within {seconds} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def freed(lab, seconds):
    """How long until no server works for the crowd. Seen twice: requests that move to the other server are with neither for a moment."""

    def free():
        return busy(lab) < WAITING / 2 and (time.sleep(0.05), busy(lab) < WAITING / 2)[1]

    try:
        lab.freed = wait_until(free, seconds, "freed")
    except labs.Failure:
        lab.freed = None


def crowd_closes(lab):
    """The crowd closes its connections: FIN."""
    crowd(lab)
    for one in lab.crowd:
        one.close()
    freed(lab, 3)


def crowd_resets(lab):
    """RST."""
    crowd(lab)
    for one in lab.crowd:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    freed(lab, 3)


def crowd_vanishes(lab):
    """No segment of the crowd's leaves or arrives any more; then its processes end."""
    crowd(lab)
    vanish(lab, 6)


def resting_crowd_vanishes(lab):
    """The same with clients at the end of resting tunnels beside it, where the proxy makes tunnels."""
    crowd(lab)

    def connect():
        tunnels = [socket.create_connection((labs.PROXY, labs.PORT), timeout=5, source_address=(labs.GOING, 0)) for _ in range(TUNNELS)]
        for one in tunnels:
            one.sendall(TUNNEL)
            one.recv(4096)
        return tunnels

    lab.crowd += lab.network.call("client", connect)
    vanish(lab, 10)


def vanish(lab, seconds):
    """Cuts the crowd off and ends it; waits for so long that its requests end."""
    lab.network.drop("client", "output", f"ip saddr {labs.GOING}")
    lab.network.drop("client", "input", f"ip daddr {labs.GOING}")
    for one in lab.crowd:
        one.close()
    freed(lab, seconds)


def judge_freed(limit):
    """The crowd's upstream connections were freed in time."""

    def judge(lab, run):
        run.notes.append(f"freed after {lab.freed:.1f} s" if lab.freed is not None else "not freed")
        return [] if lab.freed is not None and lab.freed <= limit else [f"servers worked for clients that were gone (limit {limit} s)"]

    return judge


def page_idle(status):
    """All clients' connections are gone."""
    left = status["totals"]["connections"]
    return [f"{left} client connections are left"] if left > 0 else []


def crowd_half_closes(lab):
    """Clients that finish sending and still read."""

    def converse():
        answers = []
        for _ in range(5):
            one = socket.create_connection((labs.PROXY, labs.PORT), timeout=5)
            one.sendall(b"GET /wait/1200 HTTP/1.1\r\nHost: a.example\r\n\r\n")
            one.shutdown(socket.SHUT_WR)
            answers.append(one)
        texts = []
        for one in answers:
            text = b""
            while piece := one.recv(65536):
                text += piece
            texts.append(text)
        return texts

    lab.answers = lab.network.call("client", converse)


def judge_answers(lab, run):
    """Each half-closed client got its answer, behind at most one interim response."""
    good = [text for text in lab.answers if text.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 200 ")]
    run.notes.append(f"{len(good)} of {len(lab.answers)} half-closed clients answered")
    return [] if len(good) == len(lab.answers) else ["a half-closed client got no answer"]


# The proxy's own -------------------------------------------------------------------------------------------------------------------


def preload(lab):
    """The environment with a clock that can be moved."""
    shim = lab.directory / "clock.so"
    labs.run("cc", "-shared", "-fPIC", "-O2", "-o", shim, labs.HERE / "clock.c")
    lab.clock.write_bytes(struct.pack("q", 0))
    return {"LD_PRELOAD": str(shim), "RINGLANE_CLOCK": str(lab.clock)}


def jump(lab):
    """The date jumps: a day ahead, then two back."""
    lab.dates = [date_seen(lab)]
    for seconds in (DAY, -DAY):
        with open(lab.clock, "r+b") as clock:
            clock.write(struct.pack("q", seconds))
        time.sleep(1.3)
        lab.dates.append(date_seen(lab))


def date_seen(lab):
    """The Date that the proxy writes, in seconds; Ringlane writes one into answers of its own only."""

    async def ask():
        connection = Connection(labs.PROXY, labs.PORT)
        _, fields, _ = await connection.ask(b"GET /x HTTP/1.1\r\nHost: a.example\r\nExpect: nothing\r\n\r\n")
        connection.close()
        return email.utils.parsedate_to_datetime(fields["date"]).timestamp()

    return lab.network.call("client", lambda: labs.run_loop(ask()))


def judge_clock(lab, run):
    """The jumps were seen."""
    ahead, back = lab.dates[1] - lab.dates[0], lab.dates[2] - lab.dates[1]
    run.notes.append(f"the date moved by {ahead / DAY:+.1f} and {back / DAY:+.1f} days")
    return [] if abs(ahead - DAY) < 60 and abs(back + 2 * DAY) < 60 else ["the clock did not move, so nothing was tested"]


def page_timeouts(status):
    """No timeout came of it."""
    timeouts = {name: count for name, count in status["totals"]["timeouts"].items() if count and name != "keep_alive"}
    return [f"timeouts: {timeouts}"] if timeouts else []


def fault(what):
    """Asks a debug build for a fault."""

    def begin(lab):
        async def ask():
            connection = Connection(labs.PROXY, labs.PORT)
            await connection.ask(f"GET /fault/{what} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
            connection.close()

        lab.network.call("client", lambda: labs.run_loop(ask()))

    return begin


def judge_restart(lab, run):
    """The shard was started again, once."""
    restarts = lab.status()["shard_restarts"]
    run.notes.append(f"{restarts} shard restart")
    return [] if restarts == 1 and "shard died" in lab.log() else [f"{restarts} restarts"]


def health_dies(lab):
    """The health thread panics whenever it looks; then server a is killed."""
    fault("health")(lab)
    lab.stale_after = wait_until(lambda: lab.status()["health"]["stale"], 2, "health is stale")
    kill(lab)


def health_lives(lab):
    """It looks again, and server a is back."""
    lab.stale_to_the_end = lab.status()["health"]["stale"]
    start(lab)
    fault("health")(lab)


def judge_health(lab, run):
    """Health was stale for as long as the thread died, and is not any more."""
    run.notes.append(f"health stale after {lab.stale_after:.1f} s")
    misses = [] if lab.stale_to_the_end else ["health was not stale to the end"]
    if lab.status()["health"]["stale"]:
        misses.append("health is still stale")
    return misses if "health monitor panicked" in lab.log() else [*misses, "the log does not say it"]


def terminate(lab):
    """The proxy's signal for an orderly end, under load. The end of the load is the refused connection."""
    lab.proxy.send_signal(lab.kind.graceful)


def terminate_in_handshake(lab):
    """The same when clients are connected as far as they know, but the last step of the handshake is lost: their requests, sent again 0.2 s
    later, are the first that the proxy's kernel hears."""
    lab.network.drop("client", "output", f"ip saddr {labs.GOING} tcp flags & (syn | rst) == 0x0")

    def connect():
        sockets = [socket.create_connection((labs.PROXY, labs.PORT), timeout=5, source_address=(labs.GOING, 0)) for _ in range(10)]
        for one in sockets:
            one.sendall(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        return sockets

    sockets = lab.network.call("client", connect)
    time.sleep(0.08)
    lab.proxy.send_signal(lab.kind.graceful)
    lab.network.clear()
    lab.answers = []
    for one in sockets:
        try:
            lab.answers.append(one.recv(65536))
        except OSError as error:
            lab.answers.append(str(error).encode())


def judge_handshakes(lab, run):
    """Each of those clients got its answer, and the rest was drained."""
    good = sum(text.startswith(b"HTTP/1.1 200 ") for text in lab.answers)
    run.notes.append(f"{good} of {len(lab.answers)} answered")
    return [] if good == len(lab.answers) else [f"{len(lab.answers) - good} connections cut: {set(lab.answers)}"]


def judge_drain(lab, run):
    """Both sides count the same, and the proxy ended by itself."""
    try:
        code = lab.proxy.wait(timeout=8)
    except Exception:  # pylint: disable=broad-except  # whatever it is, it has not ended
        code = None
    answered = sum(outcome.result == "200" for outcome in run.outcomes)
    served = sum(sum(origin.count()["served"].values()) for origin in lab.origins.values())
    results = {outcome.result for outcome in run.outcomes if outcome.result != "200"}
    # On a kept connection a request can cross the close; on a new one nothing may happen but a refused connect.
    cut = [outcome for outcome in run.outcomes if outcome.result in ("truncated", "no answer") or (outcome.fresh and outcome.result in ("closed", "reset"))]
    run.notes.append(f"origins served {served}, clients got {answered}; exit {code}")
    misses = [] if served == answered else [f"{served - answered} requests were served and not answered"]
    misses += [f"{len(cut)} requests were cut"] if cut else []
    misses += [] if results <= {"refused", "closed", "reset", "unreachable"} else [f"outcomes {results}"]
    return misses + ([] if code == 0 and lab.kind.drained in lab.log() else [f"exit {code}"])


IN_FLIGHT = 10
DOWN = frozenset({"down"})
OUT = frozenset({"ejected"})

# How many POSTs may be lost: those that server a had, or got before its health was known (3 failures, and what was under way then).
CASES = [
    Case("killed", "SIGKILL for the server", kill, start, Expected(posts=IN_FLIGHT, settled=1.0, back=3.0, states=DOWN), quick=True),
    Case("refusing", "the server's port is closed", mode("refuse"), OK, Expected(posts=IN_FLIGHT, settled=1.0, back=3.0, states=DOWN)),
    Case("paused", "SIGSTOP for the server", pause, resume, Expected(posts=2 * IN_FLIGHT, settled=2.5, back=3.5), seconds=(3.0, 4.0)),
    Case("slow", "answers after 300 ms", mode("slow 300"), OK, Expected(back=1.0)),
    Case("too slow", "answers after 3 s, the timeout is 1 s", mode("slow 3000"), OK, Expected(posts=2 * IN_FLIGHT, settled=2.5, back=4.0), seconds=(3.0, 4.5)),
    Case("silent", "takes requests, answers none", mode("hang"), OK, Expected(posts=2 * IN_FLIGHT, settled=2.5, back=4.0), seconds=(3.0, 4.5)),
    Case("reset in head", "resets in the middle of a head", mode("reset_head"), OK, Expected(posts=IN_FLIGHT, settled=1.5, back=4.0), seconds=(2.5, 4.0)),
    Case("close in head", "closes in the middle of a head", mode("close_head"), OK, Expected(posts=IN_FLIGHT, settled=1.5, back=4.0), seconds=(2.5, 4.0)),
    # What has begun cannot be taken back: a part of the answer has left.
    Case(
        "reset in body",
        "resets in the middle of a body",
        mode("reset_body"),
        OK,
        Expected(gets=2 * IN_FLIGHT, posts=IN_FLIGHT, settled=1.5, back=4.0),
        seconds=(2.5, 4.0),
        quick=True,
    ),
    Case("half-closing", "finishes sending without an answer, reads on", mode("half_close"), OK, Expected(posts=IN_FLIGHT, settled=1.5, back=4.0), seconds=(2.5, 4.0)),
    Case("garbage", "answers with noise", mode("garbage"), OK, Expected(posts=IN_FLIGHT, settled=1.5, back=4.0), seconds=(2.5, 4.0)),
    Case("black hole", "segments to the server are dropped", black_hole, open_again, Expected(posts=2 * IN_FLIGHT, settled=2.5, back=4.0), seconds=(3.0, 4.5)),
    Case("flapping", "its port closes and opens 6 times in 2.4 s", flap, OK, Expected(posts=3 * IN_FLIGHT, back=4.0), seconds=(0.1, 4.5)),
    Case(
        "both killed",
        "both servers, one after the other, never both at once",
        lambda lab: (kill(lab), time.sleep(1), start(lab), time.sleep(2), lab.origins["b"].kill(), time.sleep(0.5), lab.origins["b"].start()),
        expected=Expected(posts=2 * IN_FLIGHT, back=3.0),
        seconds=(0.1, 2.5),
    ),
    Case("clients close", "20 clients close (FIN) while they wait, upload or idle", crowd_closes, judge=judge_freed(1.3), page=page_idle, settings=PATIENT, seconds=(0.1, 0.5), quick=True),
    Case("clients reset", "the same with RST", crowd_resets, judge=judge_freed(1.3), page=page_idle, settings=PATIENT, seconds=(0.1, 0.5)),
    Case(
        "clients vanish",
        "the same without a segment; servers have 1.5 s to answer, and are tried in turn",
        crowd_vanishes,
        open_again,
        judge=judge_freed(4.5),
        settings=Settings(response="1500ms"),
        page=page_idle,
        seconds=(2.5, 0.5),
    ),
    Case(
        "clients vanish at rest",
        "the same and 6 tunnels, with 30 s for everything and `tcp_keepalive` of 1 s",
        resting_crowd_vanishes,
        open_again,
        judge=judge_freed(6.5),
        settings=ASKING,
        page=page_idle,
        seconds=(1.0, 0.5),
    ),
    Case("clients half-close", "5 clients finish sending and wait", crowd_half_closes, judge=judge_answers, settings=PATIENT, seconds=(0.1, 0.3), quick=True),
    Case(
        "loss",
        "3 % of all segments on all links",
        lose(3),
        open_again,
        Expected(back=1.5),
        # A request whose segments are lost a few times in a row must not meet the end of a short keep_alive.
        settings=Settings(client="75s", connect="3s", response="60s", check_interval="3s", check_fast="1s", check_timeout="3s"),
        seconds=(6.0, 2.5),
    ),
    Case("delay", "100 ms each way to the servers", lambda lab: None, expected=Expected(), delay_ms=100, seconds=(2.0, 1.0)),
    Case("clock", "the date jumps a day ahead and two days back", jump, judge=judge_clock, page=page_timeouts, environment=preload, seconds=(0.1, 1.0), quick=True),
    Case(
        "shard",
        "a shard's thread panics",
        fault("shard"),
        # What the shard had is lost: a request of each client at most.
        expected=Expected(gets=IN_FLIGHT, posts=IN_FLIGHT, settled=1.5),
        environment=lambda lab: {"RINGLANE_FAULTS": "1"},
        judge=judge_restart,
        debug=True,
    ),
    Case(
        "connection task",
        "a connection's task panics",
        fault("connection"),
        environment=lambda lab: {"RINGLANE_FAULTS": "1"},
        page=lambda status: [] if status["totals"]["panics"] == 1 else ["the panic was not counted"],
        debug=True,
        seconds=(0.5, 0.5),
    ),
    Case(
        "health thread",
        "the health thread panics whenever it looks; meanwhile the server is killed",
        health_dies,
        health_lives,
        Expected(posts=IN_FLIGHT, settled=1.5, back=3.0),
        environment=lambda lab: {"RINGLANE_FAULTS": "1"},
        judge=judge_health,
        debug=True,
    ),
    Case("SIGTERM", "the proxy stops under load", terminate, expected=Expected(gets=None, posts=None), judge=judge_drain, seconds=(2.5, 0.1), quick=True),
    Case(
        "handshakes",
        "SIGTERM while 10 clients connect",
        terminate_in_handshake,
        expected=Expected(gets=None, posts=None),
        judge=judge_handshakes,
        seconds=(0.1, 0.1),
        quick=True,
    ),
]
