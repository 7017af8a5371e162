"""ClickHouse's HTTP interface in front of ClickHouse as a library.

The library is what the Python package `chdb-core` brings: the whole engine of a server, with its configuration file, its
users and its directories, but without listeners. This gives it the one listener that tests and engines talk to. What it keeps
to is https://clickhouse.com/docs/interfaces/http and `src/Server/HTTPHandler.cpp`: statements in the body or in `query`,
settings and `param_…` in the address, sessions, users, the status and headers of errors.

What differs from a server: the front checks who is there, and only knows the users of its command line, but the engine runs
every statement as `default`; `query_id` is not taken over; there is no compression (`compress`, `decompress`,
`Accept-Encoding`). The library itself has another default for some settings, such as `implicit_select`.
"""

import argparse
import base64
import importlib
import json
import os
import re
import signal
import sys
import threading
import types
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Parameters of a request that are no settings (`HTTPHandler.cpp`, `reserved_param_names`).
RESERVED = {
    "query", "database", "default_format", "user", "password", "quota_key", "query_id", "stacktrace", "wait_end_of_query",
    "buffer_size", "session_id", "session_timeout", "session_check", "close_session", "role", "client_protocol_version",
}
# `exceptionCodeToHTTPStatus`, by the numbers of `src/Common/ErrorCodes.cpp`; what is not listed is 500.
STATUS = {
    400: {6, 25, 26, 27, 38, 41, 53, 62, 72, 117},
    401: {194},
    403: {192, 193, 516},
    404: {46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336},
    501: {48},
    503: {76, 209},
}
CODE = re.compile(r"^Code: (\d+)\. ")
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")
FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z0-9]+)\s*;?\s*$", re.IGNORECASE)
# Statements whose answer may be of any size. The library streams the answers of these, and only of these.
STREAMED = re.compile(rb"^[\s(]*(SELECT|WITH)\b", re.IGNORECASE)
INSERTING = re.compile(rb"^\s*INSERT\b", re.IGNORECASE)
NOT_STREAMED = "Streaming query is not supported"
TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "RowBinary": "application/octet-stream",
    "Native": "application/octet-stream",
}


class Refused(Exception):
    """An error that this front finds itself, in the words of the server."""

    def __init__(self, code, name, message):
        super().__init__(f"Code: {code}. DB::Exception: {message}. ({name})")


def load(directory):
    """Loads the library alone: the package around it wants other packages, and opens a database when it is imported."""
    package = types.ModuleType("chdb")
    package.__path__ = [os.path.join(directory, "chdb")]
    sys.modules["chdb"] = package
    return importlib.import_module("chdb._chdb")


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Session:
    """A connection that outlives a request, for `session_id`."""

    def __init__(self, connection, user):
        self.connection, self.user, self.busy = connection, user, threading.Lock()


class Engine:
    def __init__(self, arguments):
        library = load(arguments.library)
        # The library handles signals as a command line client does; this process ends by them as a server does.
        library.set_signal_handlers_enabled(False)
        self.address = f"{arguments.data}?config-file={arguments.config}&log-level={arguments.log_level}"
        self.connect = lambda: library.connect(self.address)
        with open(arguments.users, encoding="utf-8") as file:
            self.users = json.load(file)
        # The engine lives as long as one connection does.
        self.main = self.connect()
        self.version = self.main.query("SELECT version()", "TabSeparated").bytes().decode().strip()
        self.sessions, self.lock = {}, threading.Lock()

    def admit(self, user, password):
        if self.users.get(user) != password:
            said = f"{user}: Authentication failed: password is incorrect, or there is no user with such name"
            raise Refused(516, "AUTHENTICATION_FAILED", said)

    def session(self, name, user, must_exist):
        with self.lock:
            session = self.sessions.get(name)
            if session is None:
                if must_exist:
                    raise Refused(372, "SESSION_NOT_FOUND", f"Session {name} not found")
                session = self.sessions[name] = Session(self.connect(), user)
            if session.user != user:
                raise Refused(372, "SESSION_NOT_FOUND", f"Session {name} not found")
        if not session.busy.acquire(blocking=False):
            raise Refused(373, "SESSION_IS_LOCKED", f"Session {name} is locked by a concurrent client")
        return session

    def forget(self, name):
        with self.lock:
            return self.sessions.pop(name, None)

    def close(self):
        with self.lock:
            sessions, self.sessions = list(self.sessions.values()), {}
        for session in sessions:
            session.connection.close()
        self.main.close()


def answer(connection, statement, form, params):
    """The parts of the answer. An error of the statement comes before the first part where the engine finds it in time."""
    if STREAMED.match(statement):
        try:
            stream = connection.send_query(statement, form, params=params)
            part = connection.streaming_fetch_result(stream)
        except RuntimeError as error:
            if NOT_STREAMED not in str(error):
                raise
        else:
            while part is not None and part.bytes():
                yield part.bytes()
                part = connection.streaming_fetch_result(stream)
            return
    # The library would run one after the other. What is inserted may have semicolons.
    if b";" in statement and not INSERTING.match(statement):
        if connection.classify_query(statement.decode("utf-8", "replace"))["statement_count"] > 1:
            raise Refused(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
    yield connection.query(statement, form, params=params).bytes() or b""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = 600

    def log_message(self, *_):
        pass  # The engine logs statements.

    def do_GET(self):
        self.handle_request(writes=False)

    def do_HEAD(self):
        self.handle_request(writes=False)

    def do_POST(self):
        self.handle_request(writes=True)

    def handle_request(self, writes):
        address = urllib.parse.urlsplit(self.path)
        body = self.body()
        if address.path in ("/ping", "/replicas_status"):
            return self.whole(200, b"Ok.\n")
        given = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))
        if address.path != "/":
            return self.whole(404, f"There is no handle {address.path}\n".encode())
        if not writes and "query" not in given:
            return self.whole(200, b"Ok.\n")
        try:
            self.run(given, body, writes)
        except (RuntimeError, Refused) as error:
            self.failed(str(error))

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if size == 0:
                    return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def who(self, given):
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            user, _, password = base64.b64decode(basic[6:]).decode().partition(":")
            return user or "default", password
        user = self.headers.get("X-ClickHouse-User") or given.get("user") or "default"
        return user, self.headers.get("X-ClickHouse-Key") or given.get("password") or ""

    def run(self, given, body, writes):
        engine = self.server.engine
        user, password = self.who(given)
        engine.admit(user, password)
        for name in ("compress", "decompress"):
            if given.pop(name, "0") not in ("0", "false"):
                raise Refused(48, "NOT_IMPLEMENTED", f"The testkit's front has no {name}")
        # The server reads the parameter, a line feed and the body as one text (`HTTPHandler.cpp`, `ConcatReadBuffer`).
        query = given.get("query", "")
        statement = query.encode("utf-8", "surrogateescape")
        statement = statement + b"\n" + body if query and body else statement or body
        if not statement.strip():
            raise Refused(62, "SYNTAX_ERROR", "Syntax error: Empty query")
        name = given.get("session_id")
        if name is None:
            connection = engine.connect()
            try:
                self.statement(connection, given, statement, writes)
            finally:
                connection.close()
            return
        session = engine.session(name, user, given.get("session_check") == "1")
        try:
            self.statement(session.connection, given, statement, True)
        finally:
            if given.get("close_session") == "1" and engine.forget(name):
                session.connection.close()
            session.busy.release()

    def statement(self, connection, given, statement, writes):
        database = given.get("database") or self.headers.get("X-ClickHouse-Database")
        if database:
            connection.query(f"USE {identifier(database)}", "TabSeparated")
        if not writes:
            connection.query("SET readonly = 2", "TabSeparated")
        form = self.headers.get("X-ClickHouse-Format") or given.get("default_format") or "TabSeparated"
        params = {}
        for name, value in given.items():
            if name.startswith("param_"):
                params[name[len("param_"):]] = value
            elif name not in RESERVED:
                if not NAME.match(name):
                    raise Refused(115, "UNKNOWN_SETTING", f"Setting {name} is neither a builtin setting nor started with the prefix")
                connection.query(f"SET {name} = {quoted(value)}", "TabSeparated")
        said = FORMAT.search(statement[-200:].decode("utf-8", "replace"))
        parts = answer(connection, statement, form, params)
        if given.get("wait_end_of_query") in ("1", "true"):
            parts = iter(list(parts))
        self.stream(parts, said.group(1) if said else form)

    def stream(self, parts, form):
        first = next(parts, b"")
        self.send_response(200)
        self.send_header("Content-Type", TYPES.get(form, "text/plain; charset=UTF-8"))
        self.send_header("X-ClickHouse-Format", form)
        self.send_header("X-ClickHouse-Server-Display-Name", "testkit")
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.chunk(first)
            for part in parts:
                self.chunk(part)
        except (RuntimeError, Refused) as error:
            # As a server does it: the text follows what was sent, and the answer is not ended as a whole one is.
            self.chunk(self.text(str(error)))
            self.close_connection = True
            self.wfile.flush()
            return
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, part):
        if part:
            self.wfile.write(b"%x\r\n" % len(part))
            self.wfile.write(part)
            self.wfile.write(b"\r\n")

    def text(self, error):
        return f"{error} (version {self.server.engine.version})\n".encode("utf-8", "surrogateescape")

    def failed(self, error):
        found = CODE.match(error)
        code = int(found.group(1)) if found else 1002
        status = next((status for status, codes in STATUS.items() if code in codes), 500)
        self.whole(status, self.text(error), {"X-ClickHouse-Exception-Code": str(code)})

    def whole(self, status, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    # A port that another process listens on must be an error, so that the testkit takes another one.
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        # A client that goes before it has read all is no error; the statement ends with it.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser()
    for name in ("library", "data", "config", "users", "port", "log-level"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    server = Server(("127.0.0.1", int(arguments.port)), Handler, bind_and_activate=False)
    server.server_bind()
    server.engine = Engine(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    # Only what answers has been loaded: nobody can connect before.
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ended.wait()
    server.shutdown()
    server.engine.close()
    sys.stderr.flush()
    # Threads of requests that still wait for the engine must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
