"""A TCP proxy on this machine that counts connections, requests and bytes.

Requests are read from what the client sends: GET and HEAD have no body, so each head is one. It
understands no TLS. It is for counting, not for timing: one thread for each direction.
"""
import contextlib
import socket
import threading


class Counter:
    def __init__(self, target):
        self.target = target
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.forget()
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self):
        with self.lock:
            self.connections = self.received = 0
            self.requests = []  # (method, target, is it a range?)

    def count(self, *parts, method=None):
        """Requests whose target holds all these texts."""
        with self.lock:
            return sum(all(part in target for part in parts) and method in (None, verb) for verb, target, _ in self.requests)

    def ranges(self):
        with self.lock:
            return sum(ranged for _, _, ranged in self.requests)

    def summary(self):
        return {"connections": self.connections, "requests": len(self.requests), "ranges": self.ranges(), "bytes": self.received}

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            with self.lock:
                self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._move, args=(server, client, self._bytes), daemon=True)
        back.start()
        self._move(client, server, self._heads())
        back.join()
        client.close()
        server.close()

    def _bytes(self, data):
        with self.lock:
            self.received += len(data)

    def _heads(self):
        rest = b""

        def see(data):
            nonlocal rest
            *heads, rest = (rest + data).split(b"\r\n\r\n")
            for head in heads:
                lines = head.decode(errors="replace").split("\r\n")
                method, target, _ = (lines[0] + "  ").split(" ", 2)
                ranged = any(line.lower().startswith("range:") for line in lines[1:])
                with self.lock:
                    self.requests.append((method, target, ranged))

        return see

    @staticmethod
    def _move(source, sink, see):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                see(data)
                sink.sendall(data)
        for each, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with contextlib.suppress(OSError):
                each.shutdown(how)
