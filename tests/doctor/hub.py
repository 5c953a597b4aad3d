"""A small server that speaks the hub's API over files in memory."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by id, each a dict of path -> bytes; an address to reach them at.

    Attributes:
        refused: id -> (status, the hub's error code).
        cuts: how many more downloads break off half-way.
        asked: the paths of all requests.
        sent: (method, path, the Range header) of every request for a file.
    """

    def __init__(self, repositories):
        self.repositories = repositories
        self.refused = {}
        self.cuts = 0
        self.asked = []
        self.sent = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fetched(self):
        """Return the paths of files whose content was asked for."""
        return [path for method, path, _ in self.sent if method == "GET"]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self._answer()

        def do_GET(self):
            self._answer()

        def _answer(self):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
                self._describe(found[1], found[2] or "")
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(found[1], found[3])
            else:
                self._reply(404, {}, b"")

        def _refuse(self, repository):
            if repository in hub.refused:
                status, code = hub.refused[repository]
            elif repository not in hub.repositories:
                status, code = 401, "RepoNotFound"
            else:
                return False
            self._reply(status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}")
            return True

        def _describe(self, repository, rest):
            # What a gated repository holds is told to everybody.
            gated = hub.refused.get(repository, (0, ""))[1] == "GatedRepo"
            if not gated and self._refuse(repository):
                return
            files = hub.repositories[repository]
            if rest.startswith("/tree/"):
                body = [
                    {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)}
                    for path, data in files.items()
                ]
            else:
                siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
                body = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False}
            self._reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

        def _file(self, repository, path):
            hub.sent.append((self.command, path, self.headers.get("Range", "")))
            if self._refuse(repository):
                return
            data = hub.repositories[repository].get(path)
            if data is None:
                self._reply(404, {"X-Error-Code": "EntryNotFound"}, b"")
                return
            headers = {
                "ETag": f'"{_sha1(data)}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if start and int(start[1]):
                headers["Content-Range"] = f"bytes {start[1]}-{len(data) - 1}/{len(data)}"
                self._reply(206, headers, data[int(start[1]) :])
            else:
                self._reply(200, headers, data)

        def _reply(self, status, headers, body):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.cuts and status in (200, 206) and "ETag" in headers and len(body) > 100_000:
                hub.cuts -= 1
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(body)

    return Handler


def _sha1(data):
    return hashlib.sha1(data).hexdigest()
