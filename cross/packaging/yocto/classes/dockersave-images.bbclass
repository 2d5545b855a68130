# Pinned container images as archives in the root file system, loaded at the first boot by dockersave-load:
#
#     inherit dockersave-images
#     SRC_URI = "oci://ghcr.io/owner/app;tag=1.2;digest=sha256:...;sha256sum=..."
#
# lib/dockersave_fetch.py says what an URL may have.

def dockersave_register(d):
    import importlib.util
    path = bb.utils.which(d.getVar("BBPATH"), "lib/dockersave_fetch.py")
    if not path:
        bb.fatal("lib/dockersave_fetch.py is in no layer: copy it beside the class")
    spec = importlib.util.spec_from_file_location("dockersave_fetch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    return path

# At once, before anything looks at SRC_URI, in every process that parses the recipe.
DOCKERSAVE_FETCHER := "${@dockersave_register(d)}"

def dockersave_archives(d):
    urls = [url for url in d.getVar("SRC_URI").split() if url.startswith("oci://")]
    fetcher = bb.fetch2.Fetch(urls, d)
    return " ".join(os.path.basename(fetcher.localpath(url)) for url in urls)

DOCKERSAVE_PLATFORM:x86 ?= "linux/386"
DOCKERSAVE_PLATFORM:x86-64 ?= "linux/amd64"
DOCKERSAVE_PLATFORM:aarch64 ?= "linux/arm64"
DOCKERSAVE_PLATFORM:armv6 ?= "linux/arm/v6"
DOCKERSAVE_PLATFORM:armv7a ?= "linux/arm/v7"
DOCKERSAVE_PLATFORM:armv7ve ?= "linux/arm/v7"
DOCKERSAVE_PLATFORM:riscv64 ?= "linux/riscv64"

# The program for the machine that builds.
do_fetch[depends] += "dockersave-bin-native:do_populate_sysroot"

# Where the loader looks.
DOCKERSAVE_DIR ?= "${localstatedir}/lib/dockersave"
# Before styhead there was no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${DOCKERSAVE_DIR}
    for archive in ${@dockersave_archives(d)}; do
        install -m 0644 ${S}/$archive ${D}${DOCKERSAVE_DIR}/
    done
}

PACKAGE_ARCH = "${MACHINE_ARCH}"
FILES:${PN} = "${DOCKERSAVE_DIR}"
RDEPENDS:${PN} += "dockersave-load"
