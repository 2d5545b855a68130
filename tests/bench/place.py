"""Where a bench runs: a directory, and the servers in it. All of it is gone at the end."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_port(port, what):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return port
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{what} did not start")


class Place:
    def __init__(self, registry, parent=None):
        """`registry`: the tests' registry as a program, which fills and serves."""
        self.registry = os.path.abspath(registry)
        self.path = tempfile.mkdtemp(prefix="dockersave-bench-", dir=parent)
        self.out = os.path.join(self.path, "out")
        os.mkdir(self.out)
        self.started = []
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.terminate()
            process.wait()
        shutil.rmtree(self.path, ignore_errors=True)

    def start(self, *command, **more):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **more)
        self.started.append(process)
        return process

    def stop(self, process):
        self.started.remove(process)
        process.terminate()
        process.wait()

    def distribution(self, content="content", tls=False, configuration=None, **environment):
        """A docker-registry; several may serve the same content. Its port."""
        if not shutil.which("docker-registry"):
            sys.exit("docker-registry is not here: apt-get install docker-registry")
        port = free_port()
        settings = {
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": f"{self.path}/{content}",
            **environment,
        }
        if tls:
            cert, key = self.certificate()
            settings.update(REGISTRY_HTTP_TLS_CERTIFICATE=cert, REGISTRY_HTTP_TLS_KEY=key)
        self.start("docker-registry", "serve", configuration or f"{HERE}/registry.yml",
                   stdout=subprocess.DEVNULL, env={**os.environ, **settings}, cwd=self.path)
        return await_port(port, "docker-registry")

    def certificate(self):
        cert, key = f"{self.path}/cert.pem", f"{self.path}/key.pem"
        if not os.path.exists(cert):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench",
                            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
                           check=True, stderr=subprocess.DEVNULL)
        return cert, key

    def push(self, port, images):
        """Fills a registry: {name: SPEC}, as the tests' registry reads it."""
        specs = [f"{name}:latest={spec}" for name, spec in images.items()]
        subprocess.run([self.registry, "push", "--to", f"http://127.0.0.1:{port}", *specs], check=True, stdout=subprocess.DEVNULL)

    def serve(self, *arguments):
        """The tests' registry with images and faults of its own; (process, port)."""
        process = self.start(self.registry, "serve", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        if not line:
            sys.exit(f"the tests' registry did not start: serve {' '.join(arguments)}")
        return process, int(line.rsplit(":", 1)[1])

    def distant(self, port, rtt=80, each=4, total=16):
        """A link to that port: milliseconds, MB/s for a connection and for all. Its port."""
        proxy = self.start(sys.executable, f"{HERE}/wan.py", str(port), str(rtt), str(each), str(total),
                           stdout=subprocess.PIPE, text=True)
        return int(proxy.stdout.readline())
