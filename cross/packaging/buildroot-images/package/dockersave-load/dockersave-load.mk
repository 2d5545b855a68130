################################################################################
#
# dockersave-load
#
################################################################################

DOCKERSAVE_LOAD_VERSION = @VERSION@
DOCKERSAVE_LOAD_SOURCE =
DOCKERSAVE_LOAD_LICENSE = Apache-2.0

define DOCKERSAVE_LOAD_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(DOCKERSAVE_LOAD_PKGDIR)/dockersave-load $(TARGET_DIR)/usr/libexec/dockersave-load
endef
define DOCKERSAVE_LOAD_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(DOCKERSAVE_LOAD_PKGDIR)/dockersave-load.service \
		$(TARGET_DIR)/usr/lib/systemd/system/dockersave-load.service
endef
define DOCKERSAVE_LOAD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(DOCKERSAVE_LOAD_PKGDIR)/S90dockersave-load $(TARGET_DIR)/etc/init.d/S90dockersave-load
endef

$(eval $(generic-package))
