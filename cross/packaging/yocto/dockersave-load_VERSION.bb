SUMMARY = "Loads container images from archives into docker, podman or containerd at boot"
HOMEPAGE = "https://github.com/antmicro/dockersave"
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=@LICENSE_MD5@"

SRC_URI = "file://dockersave-load file://dockersave-load.service file://S90dockersave-load file://LICENSE"
# Before styhead there was no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

inherit allarch systemd update-rc.d
SYSTEMD_SERVICE:${PN} = "dockersave-load.service"
INITSCRIPT_NAME = "dockersave-load"
INITSCRIPT_PARAMS = "start 90 2 3 4 5 ."

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/dockersave-load ${D}${libexecdir}/dockersave-load
    install -D -m 0644 ${S}/dockersave-load.service ${D}${systemd_system_unitdir}/dockersave-load.service
    install -D -m 0755 ${S}/S90dockersave-load ${D}${sysconfdir}/init.d/dockersave-load
    # The loader is where the files say that it is.
    sed -i "s|/usr/libexec/|${libexecdir}/|" ${D}${systemd_system_unitdir}/dockersave-load.service ${D}${sysconfdir}/init.d/dockersave-load
}
