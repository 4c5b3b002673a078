"""llama.cpp's HTTP server in the foreground.

usage: llama_cpp.py PORT MODEL.gguf
"""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[2]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[1])
params.n_ctx, params.n_parallel = 8192, 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.endpoint_metrics = params.endpoint_slots = True
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGINT, signal.SIGTERM})
sys.exit(0)
