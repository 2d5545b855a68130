"""BitBake's fetcher for container images: oci://HOST/NAME;digest=sha256:...;sha256sum=...

Calls dockersave, which leaves one archive in DL_DIR. The same image gives the same bytes, so the archive has
a SHA-256 that a recipe can pin, and a plain HTTP server can mirror it.

    digest      of the manifest or the index: a must
    platform    linux/arm64 and the like: a must, unless DOCKERSAVE_PLATFORM says it
    tag         names the image in the archive; without it the image has no name there
    sha256sum   of the archive; or SRC_URI[NAME.sha256sum] with name=NAME
    downloadfilename   in DL_DIR, if not HOST-NAME-TAG-DIGEST-PLATFORM.tar

FETCHCMD_oci is the program, DOCKERSAVE_FLAGS are further flags of it, such as --mirror or --cacert.
"""

import os
import re
import shlex

import bb
from bb.fetch2 import FetchMethod, MissingParameterError, ParameterError, check_network_access, runfetchcmd

# Where credentials are besides HOME, which every fetcher gets.
CREDENTIALS = ["DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"]


class Oci(FetchMethod):
    """Fetches a container image as an archive."""

    def supports(self, ud, d):
        return ud.type == "oci"

    def recommends_checksum(self, ud):
        return True

    def cleanup_upon_failure(self):
        # What has arrived is in NAME.partial, and the next run resumes it.
        return False

    def urldata_init(self, ud, d):
        digest = ud.parm.get("digest")
        if not digest:
            raise MissingParameterError("digest", ud.url)
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise ParameterError("digest is not sha256: and 64 hexadecimal digits", ud.url)
        # Without it an index would give the image for the machine that builds.
        ud.platform = ud.parm.get("platform") or d.getVar("DOCKERSAVE_PLATFORM")
        if not ud.platform:
            raise MissingParameterError("platform", ud.url)
        name = ud.host + ud.path
        tag = ud.parm.get("tag")
        ud.reference = name + (f":{tag}" if tag else "") + f"@{digest}"
        parts = [name, tag, digest[7:19], ud.platform]
        made = "-".join(part for part in parts if part).replace("/", "-").replace(":", "_") + ".tar"
        ud.basename = ud.localfile = ud.parm.get("downloadfilename") or made
        if "/" in ud.localfile:
            raise ParameterError("downloadfilename is not a plain name", ud.url)
        # BitBake reads SRC_URI[sha256sum] only for the types it knows.
        flag = f"{ud.parm['name']}.sha256sum" if "name" in ud.parm else "sha256sum"
        expected = ud.parm.get("sha256sum") or d.getVarFlag("SRC_URI", flag)
        if expected:
            ud.parm["sha256sum"] = expected
        # It goes into the root file system as it is.
        ud.parm.setdefault("unpack", "0")

    def _run(self, ud, d, *flags):
        command = d.getVar("FETCHCMD_oci") or "dockersave"
        more = d.getVar("DOCKERSAVE_FLAGS") or ""
        flags = [*flags, f"--platform={ud.platform}", "--", ud.reference]
        command = f"{command} --quiet {more} {shlex.join(flags)}"
        check_network_access(d, command, ud.url)
        original = d.getVar("BB_ORIGENV", False)
        before = dict(os.environ)
        # Not on the command line, where all users see it; runfetchcmd's extraenv is newer than Yocto 6.0.
        for name in CREDENTIALS:
            value = d.getVar(name) or (original and original.getVar(name))
            if value:
                os.environ[name] = value
        try:
            return runfetchcmd(command, d)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def download(self, ud, d):
        bb.utils.mkdirhier(d.getVar("DL_DIR"))
        self._run(ud, d, f"--output={ud.localpath}")

    def checkstatus(self, fetch, ud, d):
        self._run(ud, d, "--metadata")
        return True


def register():
    """Tells BitBake of the fetcher; again, in place of the one before."""
    methods = bb.fetch2.methods
    methods[:] = [method for method in methods if type(method).__name__ != Oci.__name__] + [Oci()]
