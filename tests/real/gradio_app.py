"""A Gradio app that says which one it is: `gradio_app.py NAME PORT`."""

import sys
import time

import gradio as gr

name, port = sys.argv[1], int(sys.argv[2])


def answer(text):
    for word in text.split():
        time.sleep(0.05)
        yield f"{name}: {word}"


gr.Interface(answer, "text", "text", api_name="answer").launch(
    server_name="127.0.0.1", server_port=port, quiet=True
)
