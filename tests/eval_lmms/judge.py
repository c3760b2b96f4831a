"""A judge of answers at a local port, in the form of OpenAI's interface, and a task's words to it."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

JUDGED = """

def judged(doc, results):
    from lmms_eval.llm_judge import ServerConfig, get_server

    server = get_server("openai", ServerConfig(model_name="judge", num_retries=1, retry_delay=0))
    verdict = server.evaluate_binary(doc["question"], word(doc), results[0], output_format="0/1")
    return {"judged": float(verdict["result"])}
"""


@contextlib.contextmanager
def judge(port: int):
    """A judge that finds every answer right."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": "1"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
