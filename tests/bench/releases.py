"""A chain of releases of an image, of Debian's own packages: what has to be carried for each.

The base is Debian 12's root file system: of its last point release, then with the security updates
since, as two builds on different days have it. On it are a runtime (a package of Debian 12), an
application (the same package of newer and newer suites) and a file of settings.
"""
import concurrent.futures
import os
import shutil
import statistics
import subprocess

from measure import empty, run
from place import HERE
from push import compress, push
from tools import Source, path_of

CROSS = os.path.join(HERE, "../../cross")
RUNTIME = ("libpython3.11-minimal", "libpython3.11-stdlib")
APPLICATION = "prometheus-node-exporter"
SUITES = ("bookworm", "trixie", "sid")
# what changes: base, application (a suite), runtime
CHAIN = (
    ("the first", 0, 0, 1),
    ("application", 0, 1, 1),
    ("settings", 0, 1, 1),
    ("base: security updates", 1, 1, 1),
    ("application and runtime", 1, 2, 2),
)
FEW = 3


class Missing(Exception):
    """What this machine lacks for it."""


class Releases:
    def __init__(self, bench):
        self.bench, self.place, self.tools = bench, bench.place, bench.tools

    def measure(self):
        """What the report shows; nothing, and why, where it cannot be made here."""
        directory = os.path.join(self.place.path, "releases")
        os.makedirs(directory)
        try:
            chain = list(self.push(directory))
        except Missing as error:
            print(f"\nreleases are left out: {error}")
            return None
        rows, before = [], None
        for number, (what, blobs) in enumerate(chain, 1):
            source = Source(self.bench.plain)
            row = {"number": number, "what": what, "bytes": self.sizes(source, number, before), "seconds": {}}
            row["bytes"]["new"] = sum(size for digest, size in blobs.items() if number == 1 or digest not in chain[number - 2][1])
            rows.append(row)
            before = os.path.join(directory, f"{number}.tar")
        self.squeezed(source, rows, directory)
        far = Source(self.place.distant(self.bench.plain))
        for row in rows:
            row["seconds"] = self.seconds(far, row["number"], directory)
        shutil.rmtree(directory)
        return {"about": f"{' and '.join(RUNTIME)} on Debian 12's root file system (mmdebstrap, essential packages), {APPLICATION} of {', '.join(SUITES)}.",
                "releases": rows}

    def push(self, directory):
        """(what changed, {digest: size} of its blobs) of each release, which the registry then has."""
        if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
            raise Missing("they need root and mmdebstrap")
        with concurrent.futures.ThreadPoolExecutor(4) as several:
            bases = [several.submit(base, directory, number) for number in (0, 1)]
            packages = {(suite, name): several.submit(unpack, directory, suite, name)
                        for suite, name in [*((SUITES[0], name) for name in RUNTIME), *((suite, APPLICATION) for suite in SUITES)]}
            runtimes = [several.submit(layer, directory, f"runtime-{count}", [packages[SUITES[0], name].result() for name in RUNTIME[:count]]) for count in (1, 2)]
            applications = [several.submit(layer, directory, f"application-{suite}", [packages[suite, APPLICATION].result()]) for suite in SUITES]
            for number, (what, at, application, count) in enumerate(CHAIN, 1):
                settings = os.path.join(directory, f"settings-{number}")
                os.makedirs(f"{settings}/etc/default")
                with open(f"{settings}/etc/default/application", "w") as file:
                    file.write(f"RELEASE={number}\n")
                layers = [bases[at].result(), runtimes[count - 1].result(), applications[application].result(), layer(directory, f"settings-{number}", [settings])]
                yield what, push(self.bench.plain, "bench/releases", layers, tag=str(number))

    def pull(self, source, number, output, *more):
        name = source.name("bench/releases").rsplit(":", 1)[0]
        return [self.tools.binary, "-q", "--insecure", f"{name}:{number}", "-o", output, *more]

    def sizes(self, source, number, before):
        """Bytes of each kind of archive."""
        kept = os.path.join(self.place.path, "releases", f"{number}.tar")
        run([(self.pull(source, number, kept), self.place.out)])
        found = {"full": os.path.getsize(kept)}
        for way, more in (("thin", ()), ("any", ("--base-any",))):
            found[way] = self.size(source, number, way, "--base", before, *more) if before else found["full"]
        for tool in ("crane", "skopeo"):
            if path_of(tool):
                empty(self.place.out)
                command = [part.replace("bench/releases:latest", f"bench/releases:{number}") for part in getattr(self.tools, tool)(source, "bench/releases")]
                run([(command, self.place.out)], environment=self.tools.environment())
                found[tool] = os.path.getsize(os.path.join(self.place.out, "x.tar"))
        empty(self.place.out)
        return found

    def size(self, source, number, way, *more):
        path = os.path.join(self.place.path, "releases", f"{number}-{way}.tar")
        run([(self.pull(source, number, path, *more), self.place.path)], sync=False)
        size = os.path.getsize(path)
        os.unlink(path)
        return size

    def squeezed(self, source, rows, directory):
        """Adds the sizes with --gunzip --xz: of thin archives, and of full ones where those leave nothing out.
        A full one takes a core a minute or more, so all cores do it, and those between are not made."""
        def one(wanted):
            row, way = wanted
            base = ("--base", os.path.join(directory, f"{row['number'] - 1}.tar")) if way == "thin-xz" else ()
            row["bytes"][way] = self.size(source, row["number"], way, "--gunzip", "--xz", *base)

        same = [row for row in rows if row["bytes"]["thin"] >= row["bytes"]["full"]]
        wanted = [(row, "full-xz" if row in same else "thin-xz") for row in rows]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as several:
            list(several.map(one, wanted))
        for row in same:
            row["bytes"]["thin-xz"] = row["bytes"]["full-xz"]

    def seconds(self, far, number, directory):
        """Of a full and of a thin pull over the distant link."""
        ways = {"full": ()}
        if number > 1:
            ways["thin"] = ("--base", os.path.join(directory, f"{number - 1}.tar"))
        took = {way: [] for way in ways}
        for _ in range(min(self.bench.runs, FEW)):
            for way, more in ways.items():
                empty(self.place.out)
                took[way].append(run([(self.pull(far, number, "x.tar", *more), self.place.out)]).wall)
        empty(self.place.out)
        return {way: statistics.median(walls) for way, walls in took.items()}


def quietly(*command, **more):
    """Runs what needs Debian's mirror, whose name nobody needs to see."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=480, **more)
    except (OSError, subprocess.SubprocessError):
        raise Missing(f"{os.path.basename(command[0])} failed: can Debian's mirror in apt's sources be reached?") from None
    return done.stdout.strip()


def base(directory, number):
    """Debian 12 as its last point release has it, or with the security updates since."""
    sources = [f"deb {quietly(f'{CROSS}/mirror')} bookworm main"]
    if number:
        sources.append(f"deb {quietly(f'{CROSS}/mirror', 'debian-security')} bookworm-security main")
    settings = os.path.join(directory, f"apt-{number}.conf")
    with open(settings, "w") as file:
        # apt in there downloads as apt out here does: proxies, dates, retries.
        lines = quietly("apt-config", "dump", "Acquire").splitlines()
        file.write("\n".join(line for line in lines if not any(part in line for part in ("::IndexTargets", "::Changelogs", '""'))) + "\n")
    path = os.path.join(directory, f"base-{number}.tar")
    quietly("mmdebstrap", "--quiet", "--mode=root", "--variant=essential", f"--aptopt={settings}", "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", path, *sources,
            env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
    return compress(path)


def unpack(directory, suite, package):
    where = os.path.join(directory, f"{suite}-{package}")
    quietly(f"{CROSS}/from-debian", suite, package, where)
    return where


def layer(directory, name, trees):
    path = os.path.join(directory, f"{name}.tar")
    subprocess.run(["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--exclude=./.package", "-cf", path,
                    *(part for tree in trees for part in ("-C", tree, "."))], check=True)
    return compress(path)
