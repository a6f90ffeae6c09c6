#!/usr/bin/env python3
"""How many questions a second a served model answers, asked by one client and by many at a time.

    lorgnette quickstart
    python bench/serving.py runs/quickstart/merged

starts `lorgnette serve`, lets clients ask easy-VQA's test questions over HTTP, each with its picture, in turns of one
client and of many, and prints questions a second, and how many answers depended on the number of clients: in bfloat16
some do, where two tokens are nearly equally likely.
"""

from __future__ import annotations

import argparse
import base64
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import httpx
from easy_vqa import get_test_image_paths, get_test_questions
from rich.console import Console
from rich.table import Table

CLIENTS = (1, 8, 32)
ROUNDS = 3


class Clients:
    """Whoever asks one server."""

    def __init__(self, address: str, questions: int) -> None:
        texts, _, images = get_test_questions()
        self.asked = list(zip(texts, images, strict=True))[:questions]
        self.paths = get_test_image_paths()
        self.url = f"{address}/v1/chat/completions"
        self.http = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=max(CLIENTS)))
        self.picture = cache(self.picture)

    def picture(self, image: int) -> str:
        """Return a picture as a data URL."""
        return "data:image/png;base64," + base64.b64encode(Path(self.paths[image]).read_bytes()).decode()

    def ask(self, asked: tuple[str, int]) -> str:
        """Return the answer to one question."""
        text, image = asked
        parts = [{"type": "image_url", "image_url": {"url": self.picture(image)}}, {"type": "text", "text": text}]
        answer = self.http.post(self.url, json={"messages": [{"role": "user", "content": parts}], "max_tokens": 32})
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

    def ask_all(self, clients: int) -> tuple[list[str], float]:
        """Let so many clients ask all questions: (answers, questions a second)."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(self.ask, self.asked))
        return answers, len(self.asked) / (time.perf_counter() - began)


def main() -> None:
    """Start the server, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    command = [sys.executable, "-m", "lorgnette", "serve", options.model, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        found = re.search(r"answers at (http://\S+)/v1", server.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
        with ThreadPoolExecutor(1) as drain:
            drain.submit(server.stdout.read)  # a full pipe would stop it
            clients = Clients(found.group(1), options.questions)
            clients.ask_all(max(CLIENTS))  # the first questions find caches cold
            rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
            seen = set()
            for _ in range(ROUNDS):
                for count in CLIENTS:  # by turns: the machine may be slower at times
                    answers, rate = clients.ask_all(count)
                    rates[count].append(rate)
                    seen.add(tuple(answers))
            server.send_signal(signal.SIGINT)
    finally:
        server.kill()
    table = Table("clients", "questions/s", "against one")
    one = sorted(rates[1])[ROUNDS // 2]
    for count, measured in rates.items():
        low, middle, high = min(measured), sorted(measured)[ROUNDS // 2], max(measured)
        table.add_row(str(count), f"{middle:.1f} ({low:.1f} to {high:.1f})", f"{middle / one:.1f}x")
    Console().print(table)
    changed = sum(len(set(answers)) > 1 for answers in zip(*seen, strict=True))
    Console().print(f"{changed} of {len(clients.asked)} answers depended on how many asked")


if __name__ == "__main__":
    main()
