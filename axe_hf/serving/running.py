"""A server that runs until it is told to end, and writes a line of JSON for all that happens."""

import asyncio
import json
import logging
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

# A thread that wants Python's lock back, behind an operation of PyTorch's, waits so long, seconds,
# while another one answers requests. Python's own 5 ms would be a good part of a pass.
SWITCH_INTERVAL = 0.0005
# uvicorn's, apart from its access log, which would show what stands in addresses.
_LOGGERS = ("axe_hf.serving", "uvicorn.error")


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that nobody else can take the port, and does not listen yet.

    Raises:
        OSError: the port is taken, or the host is none of this machine.

    Example:
        >>> from axe_hf.serving import open_socket
        >>> with open_socket("127.0.0.1", 0) as found:
        ...     found.getsockname()[1] > 0
        True
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(address)
            # Two sockets that do not listen may share an address on Linux; the second is told now.
            found.listen()
        except OSError:
            found.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"--host {host} --port {port}: cannot listen there ({reason}).") from error
    return found


def run_server(app: Any, listening: socket.socket, *, timeout: float = 60.0) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted by then is still answered.

    Args:
        app: what `create_app` returned.
        listening: what `open_socket` returned; closed in the end.
        timeout: seconds for which requests are waited for at the end.

    Example:
        >>> run_server(create_app(models), open_socket("127.0.0.1", 5000))  # doctest: +SKIP
    """
    import uvicorn

    class Server(uvicorn.Server):
        """One that ends as it should: uvicorn's would raise the signal again, and die by it."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield  # where Python lets nobody listen to signals
                return
            kinds = (signal.SIGINT, signal.SIGTERM)
            before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
            try:
                yield
            finally:
                for kind, handler in before.items():
                    signal.signal(kind, handler)

    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(timeout) + 1,
    )
    interval = sys.getswitchinterval()
    with _log_of_json():
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            host, port = listening.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            note("serving", url=url)
            if not app.state.asks_for_keys and not ip_address(host.split("%")[0]).is_loopback:
                advice = "whoever reaches it may use it: ask for keys, by --api-key-file"
                note("open", logging.WARNING, advice=advice)
            asyncio.run(Server(config).serve(sockets=[listening]))
            note("ended")
        finally:
            sys.setswitchinterval(interval)
            listening.close()


def note(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line into the log."""
    logging.getLogger("axe_hf.serving").log(level, event, extra={"fields": fields})


@contextmanager
def _log_of_json() -> Iterator[None]:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    before = []
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        before.append((logger, logger.handlers, logger.propagate, logger.level))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate, logger.level = handlers, propagate, level


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record; of an exception its kind and place, never its message.

    Example:
        >>> import logging
        >>> record = logging.LogRecord("axe_hf.serving", 20, "", 0, "request", (), None)
        >>> record.fields = {"status": 200}
        >>> JsonFormatter().format(record).endswith('"event": "request", "status": 200}')
        True
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
        }
        line["event"] = record.getMessage()
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])[-5:]
            line |= {"error": record.exc_info[0].__name__}
            line |= {"where": [f"{frame.filename}:{frame.lineno}" for frame in frames]}
        return json.dumps(line)
