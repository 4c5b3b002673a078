"""Many Gradio clients: each of them joins a queue with one request and follows it with another."""

import sys
from concurrent.futures import ThreadPoolExecutor

from gradio_client import Client


def ask(i):
    client = Client(sys.argv[1], verbose=False)
    return {client.predict(f"hello to you {i}.{n}", api_name="/answer") for n in range(3)}


with ThreadPoolExecutor(8) as pool:
    answers = set().union(*pool.map(ask, range(8)))
print(answers)
assert len(answers) == 24, "each was answered for itself"
assert len({answer.split(":")[0] for answer in answers}) == 2, "by both apps"
