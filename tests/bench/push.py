"""Brings layers of real files to a registry, as an image. Nothing is measured here."""
import concurrent.futures
import hashlib
import http.client
import json
import os
import tarfile
import zlib

OCI = "application/vnd.oci.image"


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compress(path):
    """Of a tar: the path of it in gzip, as `gzip -6 -n` makes it, that one's digest, the diff ID."""
    plain, packed, squeeze = hashlib.sha256(), hashlib.sha256(), zlib.compressobj(6, zlib.DEFLATED, 31)
    with open(path, "rb") as source, open(f"{path}.gz", "wb") as sink:
        while data := source.read(1 << 20):
            plain.update(data)
            data = squeeze.compress(data)
            packed.update(data)
            sink.write(data)
        data = squeeze.flush()
        packed.update(data)
        sink.write(data)
    return f"{path}.gz", f"sha256:{packed.hexdigest()}", f"sha256:{plain.hexdigest()}"


def upload(connection, repository, body, size, digest):
    connection.request("HEAD", f"/v2/{repository}/blobs/{digest}")
    answer = connection.getresponse()
    answer.read()
    if answer.status == 200:
        return
    connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"].split("/", 3)[-1] if answer.status == 202 else ""
    connection.request("PUT", f"/{location}{'&' if '?' in location else '?'}digest={digest}", body,
                       {"Content-Length": str(size), "Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    if answer.status != 201:
        raise OSError(f"{repository}: {answer.status} {answer.read().decode(errors='replace')}")
    answer.read()


def push(port, repository, layers, tag="latest"):
    """`layers`: (path of a gzip, digest, diff ID), the base first; {digest: size} of all blobs."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": [diff_id for _, _, diff_id in layers]}}).encode()
    descriptors = []
    for path, digest, _ in layers:
        with open(path, "rb") as file:
            upload(connection, repository, file, os.path.getsize(path), digest)
        descriptors.append({"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": digest, "size": os.path.getsize(path)})
    upload(connection, repository, config, len(config), digest_of(config))
    config = {"mediaType": f"{OCI}.config.v1+json", "digest": digest_of(config), "size": len(config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": descriptors})
    connection.request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": f"{OCI}.manifest.v1+json"})
    answer = connection.getresponse()
    if answer.status != 201:
        raise OSError(f"{repository}: {answer.status} {answer.read().decode(errors='replace')}")
    return {one["digest"]: one["size"] for one in (config, *descriptors)}


def files_of_this_machine(directory, size, count):
    """Layers of what /usr has, so many bytes of tar in all: programs and texts as images hold them."""
    paths = []
    files = sorted(os.path.join(parent, name) for top in ("/usr/bin", "/usr/lib", "/usr/share") for parent, _, names in os.walk(top) for name in names)
    files = iter(files)
    for number in range(count):
        paths.append(os.path.join(directory, f"layer-{count}-{number}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            while tar.offset < size // count:
                path = next(files)
                if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < size // count // 8:
                    tar.add(path)
    with concurrent.futures.ThreadPoolExecutor() as several:
        layers = list(several.map(compress, paths))
    for path in paths:
        os.unlink(path)
    return layers
