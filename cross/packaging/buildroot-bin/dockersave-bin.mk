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
# For the machine that builds: the download step of container-images-package calls it.
HOST_DOCKERSAVE_BIN_ARCH = $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(patsubst arm,armv7,$(HOSTARCH))))
DOCKERSAVE_BIN_SOURCE = dockersave-$(DOCKERSAVE_BIN_VERSION)-linux-$(DOCKERSAVE_BIN_ARCH)
HOST_DOCKERSAVE_BIN_SOURCE = dockersave-$(DOCKERSAVE_BIN_VERSION)-linux-$(HOST_DOCKERSAVE_BIN_ARCH)
DOCKERSAVE_BIN_EXTRA_DOWNLOADS = dockersave-$(DOCKERSAVE_BIN_VERSION)-licences.txt
HOST_DOCKERSAVE_BIN_EXTRA_DOWNLOADS = $(DOCKERSAVE_BIN_EXTRA_DOWNLOADS)
DOCKERSAVE_BIN_LICENSE = Apache-2.0, MIT, ISC, BSD-3-Clause
DOCKERSAVE_BIN_LICENSE_FILES = dockersave-$(DOCKERSAVE_BIN_VERSION)-licences.txt

define DOCKERSAVE_BIN_EXTRACT_CMDS
	cp $(DOCKERSAVE_BIN_DL_DIR)/$(DOCKERSAVE_BIN_SOURCE) $(@D)/dockersave
	cp $(DOCKERSAVE_BIN_DL_DIR)/$(DOCKERSAVE_BIN_EXTRA_DOWNLOADS) $(@D)/
endef

define HOST_DOCKERSAVE_BIN_EXTRACT_CMDS
	cp $(HOST_DOCKERSAVE_BIN_DL_DIR)/$(HOST_DOCKERSAVE_BIN_SOURCE) $(@D)/dockersave
	cp $(HOST_DOCKERSAVE_BIN_DL_DIR)/$(HOST_DOCKERSAVE_BIN_EXTRA_DOWNLOADS) $(@D)/
endef

define DOCKERSAVE_BIN_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/dockersave $(TARGET_DIR)/usr/bin/dockersave
endef

define HOST_DOCKERSAVE_BIN_INSTALL_CMDS
	$(INSTALL) -D -m 0755 $(@D)/dockersave $(HOST_DIR)/bin/dockersave
endef

$(eval $(generic-package))
$(eval $(host-generic-package))
