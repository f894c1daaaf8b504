"""The switch: all proxies live at once, each with a wrk of its own, of which one runs at a time and the others are stopped.

On a busy machine, two runs one after the other meet two machines. A load that is switched ten times a second, in random order, gives
all proxies the same one. A client that is stopped knows no latencies and no requests a second: CPU per request is all there is.
"""

import contextlib
import random
import signal
import subprocess
import time

from . import load, origins, proxies
from .processes import LIBC, Failure, Process

TURN_SECONDS = 0.1
# What a wrk has asked for before it is stopped is answered before the next one's turn.
REST_SECONDS = 0.003
# wrk calls a later answer an error: longer than any time between two turns.
TIMEOUT_SECONDS = 60
# The time that wrk is told to run, in seconds: it is interrupted long before.
FOREVER = 86400
END_SECONDS = 10


class Runner:
    """A proxy, and the wrk that loads it in its turns."""

    def __init__(self, proxy, wrk, before):
        self.proxy = proxy
        self.wrk = wrk
        self.before = before

    def turn(self):
        """Lets wrk run for a while."""
        self.wrk.child.send_signal(signal.SIGCONT)
        time.sleep(TURN_SECONDS)
        self.wrk.child.send_signal(signal.SIGSTOP)
        time.sleep(REST_SECONDS)

    def result(self, case):
        """Ends wrk: what a request has cost since it was started."""
        figures = load.wrk_figures(self.output())
        after = self.proxy.cpu_seconds()
        load.check_result(self.proxy, case, figures)
        return {"requests": figures["requests"], **load.costs(figures["requests"], self.before, after)}

    def output(self):
        """What wrk prints when it is interrupted."""
        self.wrk.check_alive()
        child = self.wrk.child
        child.send_signal(signal.SIGCONT)
        # wrk's first thread sleeps all the time; a signal that another thread takes would not wake it.
        LIBC.tgkill(child.pid, child.pid, signal.SIGINT)
        try:
            child.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{self.wrk.name} did not end when it was interrupted") from error
        return self.wrk.log.read_text(errors="replace")


def span(case, setting, ports, names, seconds, load_cpu):
    """One round of freshly started proxies, with so many seconds of load for each: what they cost, by name."""
    with contextlib.ExitStack() as held:
        listening = [start_proxy(held, case, setting, name, ports.take(), load_cpu) for name in shuffled(names)]
        runners = [start_load(held, case, setting, proxy, port, load_cpu) for proxy, port in listening]
        for _ in range(round(seconds / TURN_SECONDS) - 1):
            for runner in shuffled(runners):
                runner.turn()
        return {runner.proxy.name: runner.result(case) for runner in runners}


def start_proxy(held, case, setting, name, port, load_cpu):
    """A proxy that answers and is warm, and its port."""
    proxy = held.enter_context(proxies.process(name, setting, port))
    proxy.wait_until_listening([port])
    load.check(name, port, origins.NAMES)
    load.wrk(case, port, 1, load_cpu, setting.directory)
    return proxy, port


def start_load(held, case, setting, proxy, port, load_cpu):
    """A runner after its first turn: no wrk runs beside it."""
    command = load.wrk_command(case, port, FOREVER, setting.directory, TIMEOUT_SECONDS)
    before = proxy.cpu_seconds()
    wrk = held.enter_context(Process(f"wrk-{proxy.name}", command, load_cpu, setting.directory))
    runner = Runner(proxy, wrk, before)
    runner.turn()
    return runner


def shuffled(values):
    """The same in random order."""
    return random.sample(values, len(values))
