"""Tries the SDKs of OpenAI, Anthropic and Ollama against the gateway. Says what it skips."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import anthropic
import ollama
import openai
import servers

HELLO = [{"role": "user", "content": "hello there, how are you?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
said = {"ok": 0, "FAILED": 0, "skipped": 0}


def check(what, run, *args):
    try:
        run(*args)
    except Exception as why:  # noqa: BLE001: whatever it is, it is told and the next is tried
        said["FAILED"] += 1
        print(f"FAILED: {what}: {type(why).__name__}: {why}", flush=True)
    else:
        said["ok"] += 1
        print(f"ok: {what}", flush=True)


def skip(what):
    said["skipped"] += 1
    print(f"skipped: {what}", flush=True)


# --- OpenAI ----------------------------------------------------------------------------------------------


def lists(client, models):
    listed = {model.id for model in client.models.list()}
    assert models <= listed, f"{models} are not all in {listed}"
    for model in models:
        assert client.models.retrieve(model).id == model


def answers(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=12)
    assert answer.choices[0].message.content is not None
    assert 0 < answer.usage.completion_tokens <= 12, answer.usage


def streams(client, model):
    stream = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    assert text and usage.completion_tokens > 0, (text, usage)


def completes(client, model):
    answer = client.completions.create(model=model, prompt="def f(", max_tokens=8)
    assert answer.choices[0].text is not None


def responds(client, model):
    answer = client.responses.create(model=model, input="hello", max_output_tokens=8)
    assert answer.output is not None


def calls_tools(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, max_tokens=64)
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather", call


def embeds(client, model):
    answer = client.embeddings.create(model=model, input=["one", "two"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) > 8


def refuses_unknown(client):
    try:
        client.chat.completions.create(model="tinny", messages=HELLO, max_tokens=2)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and "tiny" in str(error), error
    else:
        raise AssertionError("a model that nobody has was served")


def refuses_bad(client, model):
    try:
        client.chat.completions.create(model=model, messages=HELLO, max_tokens=2, temperature="warm")
    except openai.BadRequestError as error:
        assert error.status_code == 400
    except openai.InternalServerError as error:
        # What an engine says of it is passed on, whatever it is.
        assert error.status_code == 500


def times_out(client, model):
    hurried = client.with_options(timeout=0.3, max_retries=0)
    try:
        hurried.chat.completions.create(model=model, messages=HELLO, max_tokens=400)
    except openai.APITimeoutError:
        return
    raise AssertionError("it answered before its time was over")


def aborts(client, model, admin):
    stream = client.chat.completions.create(model=model, messages=HELLO, max_tokens=4000, stream=True)
    next(iter(stream))
    stream.close()
    servers.wait("nothing is at work", lambda: at_work(admin) == 0, 10)


def at_work(admin):
    nodes = servers.ask(admin, "/api/v1/nodes")
    return sum(endpoint["at_work"] for node in nodes for endpoint in node["endpoints"])


def many_at_once(client, model):
    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(streams, client, model) for _ in range(24)]:
            done.result()


# --- Anthropic -------------------------------------------------------------------------------------------


def messages(client, model):
    answer = client.messages.create(model=model, max_tokens=12, messages=HELLO)
    assert answer.usage.output_tokens > 0, answer


def streams_messages(client, model):
    with client.messages.stream(model=model, max_tokens=24, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.usage.output_tokens > 0 and text is not None


def counts(client, model):
    assert client.messages.count_tokens(model=model, messages=HELLO).input_tokens > 0


def refuses_unknown_message(client):
    try:
        client.messages.create(model="nobody-has-it", max_tokens=2, messages=HELLO)
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error", error.body
    else:
        raise AssertionError("a model that nobody has was served")


# --- Ollama ----------------------------------------------------------------------------------------------


def ollama_lists(client, model):
    listed = {one.model for one in client.list().models}
    assert model in listed, listed
    assert client.show(model).details is not None
    client.ps()


def ollama_chats(client, model):
    answer = client.chat(model=model, messages=HELLO, options={"num_predict": 12})
    assert answer.message.content and answer.done


def ollama_streams(client, model):
    last = None
    for part in client.chat(model=model, messages=HELLO, stream=True, options={"num_predict": 12}):
        last = part
    assert last.done and last.eval_count > 0, last


def ollama_generates(client, model):
    assert client.generate(model=model, prompt="hello", options={"num_predict": 8}).response


def ollama_embeds(client, model):
    assert len(client.embed(model=model, input=["one", "two"]).embeddings) == 2


def ollama_refuses(client):
    try:
        client.chat(model="nobody-has-it", messages=HELLO)
    except ollama.ResponseError as error:
        assert error.status_code == 404, error
    else:
        raise AssertionError("a model that nobody has was served")


def ollama_is_not_managed(client):
    for manage in (lambda: client.pull("x"), lambda: client.delete("x")):
        try:
            manage()
        except ollama.ResponseError as error:
            assert error.status_code == 403, error
        else:
            raise AssertionError("models were managed through the gateway")


# --- all of it -------------------------------------------------------------------------------------------


def main():
    with ExitStack() as stack:
        llama, tiny = stack.enter_context(servers.llama_cpp())
        sims = {
            "vllm": stack.enter_context(
                servers.simulated("vllm", "qwen3-8b", "--knobs", '{"calls_tools": true, "step_ms": 5}')
            ),
            "ollama": stack.enter_context(servers.simulated("ollama", "llama3")),
        }
        nodes = {"llama": llama, **sims}
        if os.environ.get("VLLM_URL"):
            nodes["real-vllm"] = os.environ["VLLM_URL"]
        kind = {"aliases": {"fast": [tiny], "careful": [{"model": "gone", "at": "vllm/llm"}, "qwen3-8b"]}}
        url, admin = stack.enter_context(servers.gateway(nodes, kind))
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60)
        check("openai: lists the models of all engines, and aliases", lists, client, {tiny, "qwen3-8b", "fast"})
        for what, model in {"a real llama.cpp": tiny, "an alias for it": "fast", "a simulated vLLM": "qwen3-8b"}.items():
            check(f"openai: {what} answers", answers, client, model)
            check(f"openai: {what} streams", streams, client, model)
        check("openai: an alias whose first model is gone", streams, client, "careful")
        check("openai: completions", completes, client, tiny)
        check("openai: responses", responds, client, tiny)
        check("openai: tools", calls_tools, client, "qwen3-8b")
        check("openai: embeddings", embeds, client, "llama3")
        check("openai: a model that nobody has", refuses_unknown, client)
        check("openai: an engine's own error", refuses_bad, client, tiny)
        check("openai: a client whose time is over", times_out, client, "qwen3-8b")
        check("openai: a client that leaves", aborts, client, tiny, admin)
        check("openai: more at once than there are slots", many_at_once, client, tiny)
        claude = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, timeout=60)
        check("anthropic: a real llama.cpp answers", messages, claude, tiny)
        check("anthropic: it streams", streams_messages, claude, tiny)
        check("anthropic: tokens are counted", counts, claude, tiny)
        check("anthropic: a model that nobody has", refuses_unknown_message, claude)
        lama = ollama.Client(host=url)
        check("ollama: lists, shows, says what is loaded", ollama_lists, lama, "llama3:latest")
        check("ollama: chats", ollama_chats, lama, "llama3")
        check("ollama: streams", ollama_streams, lama, "llama3")
        check("ollama: generates", ollama_generates, lama, "llama3")
        check("ollama: embeds", ollama_embeds, lama, "llama3")
        check("ollama: a model that nobody has", ollama_refuses, lama)
        check("ollama: models are not managed by clients", ollama_is_not_managed, lama)
        if "real-vllm" in nodes:
            model = servers.ask(os.environ["VLLM_URL"], "/v1/models")["data"][0]["id"]
            check("openai: a real vLLM answers", answers, client, model)
            check("openai: it streams", streams, client, model)
            check("anthropic: it answers", messages, claude, model)
        else:
            skip("a real vLLM: VLLM_URL does not say where one is")
        usage = servers.ask(admin, "/api/v1/usage")["usage"]
        check("what was used is counted", lambda: assert_used(usage, tiny))
    print(f"{said['ok']} passed, {said['FAILED']} failed, {said['skipped']} skipped")
    sys.exit(1 if said["FAILED"] else 0)


def assert_used(usage, tiny):
    rows = [row for row in usage if row["model"] == tiny]
    assert rows and rows[0]["made"] > 0 and rows[0]["read"] > 0, usage


if __name__ == "__main__":
    main()
