################################################################################
#
# dockersave-bin
#
################################################################################

DOCKERSAVE_BIN_VERSION = @VERSION@
DOCKERSAVE_BIN_SITE = https://github.com/antmicro/dockersave/releases/download/v$(DOCKERSAVE_BIN_VERSION)
ifeq ($(BR2_x86_64),y)
DOCKERSAVE_BIN_ARCH = amd64
else ifeq ($(BR2_aarch64),y)
DOCKERSAVE_BIN_ARCH = arm64
else ifeq ($(BR2_arm),y)
DOCKERSAVE_BIN_ARCH = armv7
else
DOCKERSAVE_BIN_ARCH = riscv64
endif
DOCKERSAVE_BIN_SOURCE = dockersave-$(DOCKERSAVE_BIN_VERSION)-linux-$(DOCKERSAVE_BIN_ARCH)
DOCKERSAVE_BIN_EXTRA_DOWNLOADS = dockersave-$(DOCKERSAVE_BIN_VERSION)-licences.txt
DOCKERSAVE_BIN_LICENSE = Apache-2.0, MIT, ISC, BSD-3-Clause
DOCKERSAVE_BIN_LICENSE_FILES = dockersave-$(DOCKERSAVE_BIN_VERSION)-licences.txt

define DOCKERSAVE_BIN_EXTRACT_CMDS
	cp $(DOCKERSAVE_BIN_DL_DIR)/$(DOCKERSAVE_BIN_SOURCE) $(@D)/dockersave
	cp $(DOCKERSAVE_BIN_DL_DIR)/$(DOCKERSAVE_BIN_EXTRA_DOWNLOADS) $(@D)/
endef

define DOCKERSAVE_BIN_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/dockersave $(TARGET_DIR)/usr/bin/dockersave
endef

$(eval $(generic-package))
