"""How each tool is asked for the same image. Nothing is measured here."""
import dataclasses
import json
import os
import shutil
import ssl
import subprocess
import urllib.request

# curl is the floor: as many connections as a browser's, or as the wan link has use for.
CURL_CONNECTIONS = 12


@dataclasses.dataclass
class Source:
    """A registry's port, and how it is spoken to."""
    port: int
    certificate: str = ""  # HTTPS where there is one

    def url(self, path):
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}{path}"

    def name(self, repository):
        return f"127.0.0.1:{self.port}/{repository}:latest"

    def blobs(self, repository):
        """(digest, size) of every layer."""
        context = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        request = urllib.request.Request(self.url(f"/v2/{repository}/manifests/latest"),
                                         headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        with urllib.request.urlopen(request, context=context) as answer:
            return [(layer["digest"], layer["size"]) for layer in json.load(answer)["layers"]]


def path_of(name):
    """Where a tool is: what the environment names, or the path's."""
    return os.environ.get(name.upper()) or shutil.which(name)


def version(name):
    """What a tool says it is, in one line."""
    # One that was unpacked from Debian's package says so beside it.
    unpacked = os.path.join(os.path.dirname(path_of(name) or ""), "../../.package")
    if os.path.exists(unpacked):
        with open(unpacked) as file:
            return file.read().strip()
    argument = {"crane": "version", "oras": "version"}.get(name, "--version")
    try:
        text = subprocess.run([path_of(name), argument], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    except (OSError, TypeError):
        return "not here"
    return " ".join((text.strip().splitlines() or [""])[0].split()[:4])


class Tools:
    def __init__(self, binary, place):
        self.binary, self.place = os.path.abspath(binary), place

    def environment(self, source=None):
        """The same for all: temporary files where they are looked at, the registry trusted."""
        environment = {**os.environ, "TMPDIR": self.place.out, "HOME": self.place.path}
        if source and source.certificate:
            environment["SSL_CERT_FILE"] = source.certificate
        return environment

    def dockersave(self, source, repository, *more):
        trust = ["--cacert", source.certificate] if source.certificate else ["--insecure"]
        return [self.binary, "-q", *trust, source.name(repository), *more]

    def pull(self, source, repository, jobs=None):
        return self.dockersave(source, repository, "-o", "x.tar", *(["--jobs", str(jobs)] if jobs else []))

    def crane(self, source, repository):
        return [path_of("crane"), "pull", *([] if source.certificate else ["--insecure"]), source.name(repository), "x.tar"]

    def skopeo(self, source, repository):
        trust = [] if source.certificate else ["--src-tls-verify=false"]
        return [path_of("skopeo"), "copy", "-q", *trust, f"docker://{source.name(repository)}", "docker-archive:x.tar"]

    def oras(self, source, repository):
        trust = ["--from-ca-file", source.certificate] if source.certificate else ["--from-plain-http"]
        return [path_of("oras"), "copy", "--no-tty", *trust, source.name(repository), "--to-oci-layout", "layout:latest"]

    def curl(self, source, repository, pieces=False):
        """Every layer to a file of its own, and no hashing; `pieces`: each in that many ranges."""
        config = os.path.join(self.place.path, f"curl-{source.port}-{repository.replace('/', '-')}")
        with open(config, "w") as file:
            for number, (digest, size) in enumerate(source.blobs(repository)):
                step = -(-size // CURL_CONNECTIONS) if pieces else size
                for begin in range(0, size, step):
                    if number or begin:
                        file.write("next\n")  # what stands before it is for one address alone
                    file.write(f'url = "{source.url(f"/v2/{repository}/blobs/{digest}")}"\noutput = "{number}-{begin}"\n')
                    if pieces:
                        file.write(f'range = "{begin}-{min(begin + step, size) - 1}"\n')
                    file.write("silent\nfail\nhttp1.1\n" + (f'cacert = "{source.certificate}"\n' if source.certificate else ""))
        return ["curl", "--parallel", "--parallel-immediate", "--parallel-max", str(CURL_CONNECTIONS), "-K", config]

    def all(self, source, repository, without=(), pieces=False):
        """Every tool that is here, by name."""
        found = {"dockersave": self.pull(source, repository)}
        for name in ("crane", "skopeo", "oras"):
            if name not in without and path_of(name):
                found[name] = getattr(self, name)(source, repository)
        if "curl" not in without and path_of("curl"):
            found["curl"] = self.curl(source, repository, pieces)
        return found

    def behind(self, tool):
        """What brings a tool's output to the disk, as dockersave's is at its end."""
        return ["sh", "-c", f"exec sync {self.place.out}/*"] if tool in ("crane", "skopeo", "curl") else None
