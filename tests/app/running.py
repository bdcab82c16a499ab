"""A server in a process of its own."""

import http.client
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120

PROGRAM = """
import faulthandler, sys, time, torch
from pullgeo import PullbackManifold
from pullgeo.app import serve

def decode(z):
    if bool((z[:, 1] > 10).any()):
        raise RuntimeError("no such digit")
    if bool((z[:, 1] < -10).any()):
        time.sleep(600)
    return torch.cat([z, z.sin(), z.prod(1, keepdim=True)], dim=1)

if __name__ == "__main__":
    torch.manual_seed(0)
    z = torch.randn(7, int(sys.argv[2])).double()
    PullbackManifold(decode).geodesic(z[:1], z[1:2])  # imports what the first solve needs
    serve(PullbackManifold(decode), z, limit=float(sys.argv[1]), announce=lambda address: print(address, flush=True))
    print("ended")
"""


@dataclass(frozen=True)
class Running:
    address: str
    process: subprocess.Popen

    @property
    def where(self) -> tuple[str, int, str]:
        host, port, path = re.fullmatch(r"http://([\d.]+):(\d+)(/\S+/)", self.address).groups()
        return host, int(port), path

    def ask(self, message: dict | bytes, **headers: str) -> tuple[int, dict]:
        host, port, path = self.where
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent = {"Content-Type": "application/json", "Origin": f"http://{host}:{port}", **headers}
        connection.request("POST", path + "solve", body, sent)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    @property
    def memory(self) -> int:
        """Bytes in main memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start(folder: Path, limit: float, d: int = 2) -> Running:
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(program), str(limit), str(d)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a process group of its own: an interrupt is meant for it alone
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Running(process.stdout.readline().strip(), process)
