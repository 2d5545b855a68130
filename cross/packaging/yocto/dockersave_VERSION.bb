SUMMARY = "Container images from a registry into a tar that docker load takes"
DESCRIPTION = "Downloads a container image from its registry straight into a tar. Needs no engine, \
no CA files and less than 8 MiB of memory."
HOMEPAGE = "https://github.com/antmicro/dockersave"
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=@LICENSE_MD5@"

SRC_URI = "https://github.com/antmicro/dockersave/releases/download/v${PV}/dockersave-${PV}-source.tar.gz"
SRC_URI[sha256sum] = "@SOURCE_SHA256@"

# Needs Rust 1.88 or newer; dockersave-bin needs none.
inherit cargo cargo-update-recipe-crates

require ${BPN}-crates.inc

# Yocto strips by itself, after it has split the symbols off (QA: already-stripped).
CARGO_BUILD_FLAGS:append = " --config profile.release.strip=false"
# ring's C names its files, which lie outside of ${S} (QA: buildpaths).
CFLAGS:append = " -ffile-prefix-map=${CARGO_HOME}=/cargo"

# What --version says, and the least that its clock counts as.
export DOCKERSAVE_COMMIT = "@COMMIT@"
export SOURCE_DATE_EPOCH = "@EPOCH@"
