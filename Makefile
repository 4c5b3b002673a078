.DEFAULT_GOAL := help
.PHONY: help setup run demo-render test test-real lint bench bench-comfyui bench-gateway bench-jobs bench-llm bench-schedule storm fuzz doc image

help: ## Print what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-14s %s\n", $$1, $$2}'

setup: ## Install what is missing (cmake); quiet when nothing is
	@sh tests/setup.sh

run: setup ## Start the gateway in front of four simulated GPU nodes; Ctrl-C ends everything
	@sh tests/run.sh

demo-render: setup ## Twelve frames over three nodes that render with Blender or POV-Ray, and a contact sheet of them
	@sh tests/demo-render.sh

test: setup lint ## All tests, lints and doctests
	@sh tests/all.sh

test-real: setup ## Try the gateway with clients and servers of others (curl, wrk, Gradio, Blender, ComfyUI); says what it skips
	@sh tests/real.sh
	@sh tests/real/comfyui.sh
	@sh tests/real/llm.sh

lint: setup ## Formatting and clippy; licences where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check licenses bans sources; else echo "skipped: cargo-deny is not installed"; fi

bench: setup ## Time a scheduling decision; measure tabane beside nginx, HAProxy and a minimal Pingora proxy
	cargo bench --bench decision
	@sh benches/load.sh compare

bench-comfyui: setup ## What the kind comfyui adds to a server: prompts, images, frames of 50 nodes, large files
	@sh benches/load.sh comfyui

bench-jobs: setup ## Durable submissions beside the disk's own rate, and what a backlog of 100 000 jobs costs
	@sh benches/load.sh jobs

bench-schedule: setup ## What each policy is worth on four pools, on virtual time, and how long a decision takes
	cargo bench --profile bench-fast --bench schedule

bench-gateway: setup ## 600 jobs through the gateway itself with time running 50 times as fast, beside the same on virtual time
	@sh benches/load.sh schedule

bench-llm: setup ## Chats in front of four simulated engines, beside smg where SMG names it: first tokens, whole answers, CPU
	@sh benches/load.sh llm

storm: setup ## 200 reloads in a minute under load, sockets, streams and slow uploads: nobody may be harmed
	@sh benches/load.sh storm

fuzz: setup ## Feed what comes from outside with made-up bytes, FUZZ_SECONDS (30) each; needs nightly and cargo-fuzz
	@sh tests/fuzz.sh

doc: setup ## The documentation of all crates, in target/doc
	cargo doc --workspace --no-deps

image: ## Build the container image with docker or podman
	@sh tests/image.sh
