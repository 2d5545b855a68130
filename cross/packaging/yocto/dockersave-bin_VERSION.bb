SUMMARY = "Container images from a registry into a tar that docker load takes (static binary)"
DESCRIPTION = "Downloads a container image from its registry straight into a tar. Needs no engine, \
no CA files and less than 8 MiB of memory. This is the release's file, which needs no Rust."
HOMEPAGE = "https://github.com/antmicro/dockersave"
SECTION = "net"
LICENSE = "Apache-2.0 & MIT & ISC & BSD-3-Clause"
LIC_FILES_CHKSUM = "file://dockersave-${PV}-licences.txt;md5=@LICENCES_MD5@"

DOCKERSAVE_ARCH:x86-64 = "amd64"
DOCKERSAVE_ARCH:aarch64 = "arm64"
DOCKERSAVE_ARCH:armv7a = "armv7"
DOCKERSAVE_ARCH:armv7ve = "armv7"
DOCKERSAVE_ARCH:riscv64 = "riscv64"
COMPATIBLE_HOST = "(x86_64|aarch64|arm|riscv64).*-linux.*"

DOCKERSAVE_SITE = "https://github.com/antmicro/dockersave/releases/download/v${PV}"
SRC_URI = "${DOCKERSAVE_SITE}/dockersave-${PV}-linux-${DOCKERSAVE_ARCH};name=${DOCKERSAVE_ARCH} \
           ${DOCKERSAVE_SITE}/dockersave-${PV}-licences.txt;name=licences"
SRC_URI[amd64.sha256sum] = "@AMD64_SHA256@"
SRC_URI[arm64.sha256sum] = "@ARM64_SHA256@"
SRC_URI[armv7.sha256sum] = "@ARMV7_SHA256@"
SRC_URI[riscv64.sha256sum] = "@RISCV64_SHA256@"
SRC_URI[licences.sha256sum] = "@LICENCES_SHA256@"

# Before styhead there was no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/dockersave-${PV}-linux-${DOCKERSAVE_ARCH} ${D}${bindir}/dockersave
}

# It is stripped already, and stays the file that was released.
INHIBIT_PACKAGE_STRIP = "1"
INSANE_SKIP:${PN} += "already-stripped"
RCONFLICTS:${PN} = "dockersave"

# For the fetcher of dockersave-images.bbclass.
BBCLASSEXTEND = "native"
