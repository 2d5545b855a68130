################################################################################
#
# container-images-package: container images as archives in the target
#
# FOO_CONTAINERS has a word for each: FILE|REFERENCE@DIGEST|PLATFORM|SHA256. The
# download step puts FILE into BR2_DL_DIR, from BR2_PRIMARY_SITE if that is set
# and has it, or else from the registry, and checks its SHA-256.
#
################################################################################

CONTAINER_IMAGES_DIR ?= /var/lib/dockersave
# More flags for all pulls, such as --mirror or --cacert.
DOCKERSAVE_FLAGS ?=
container-field = $(word $(1),$(subst |, ,$(2)))

# $(1): file, $(2): SHA-256
container-right = echo '$(2)  $(1)' | sha256sum --status -c 2>/dev/null
# $(1): file, $(2): address
container-from = { $(WGET) -O $(1).tmp $(2)/$(1) && mv $(1).tmp $(1); }

# $(1): file, $(2): reference, $(3): platform, $(4): SHA-256
define container-download
	$(Q)mkdir -p $($(PKG)_DL_DIR) && cd $($(PKG)_DL_DIR) && exec 9>.lock && flock 9 && { \
		$(call container-right,$(1),$(4)) || \
		$(foreach site,$(call qstrip,$(BR2_PRIMARY_SITE)),\
			{ { $(call container-from,$(1),$(site)/$($(PKG)_DL_SUBDIR)) || $(call container-from,$(1),$(site)); } && \
			$(call container-right,$(1),$(4)); } || ) \
		$(if $(BR2_PRIMARY_SITE_ONLY),false,$(HOST_DIR)/bin/dockersave $(DOCKERSAVE_FLAGS) \
			--platform $(3) --output ./$(1) $(2)) && $(call container-right,$(1),$(4)) || \
		{ echo "$(1): no site has it with the SHA-256 in $(PKG)_CONTAINERS" >&2; exit 1; }; }
endef
define CONTAINER_IMAGES_DOWNLOAD
	$(foreach image,$($(PKG)_CONTAINERS),$(call container-download,$(call container-field,1,$(image)),$(call \
		container-field,2,$(image)),$(call container-field,3,$(image)),$(call container-field,4,$(image)))$(sep))
endef

define inner-container-images-package
$(2)_SOURCE =
$(2)_DOWNLOAD_DEPENDENCIES += host-dockersave-bin
$(2)_POST_DOWNLOAD_HOOKS += CONTAINER_IMAGES_DOWNLOAD
define $(2)_INSTALL_TARGET_CMDS
	$$(foreach image,$$($(2)_CONTAINERS),$$(INSTALL) -D -m 0644 \
		$$($(2)_DL_DIR)/$$(call container-field,1,$$(image)) \
		$$(TARGET_DIR)$$(CONTAINER_IMAGES_DIR)/$$(call container-field,1,$$(image))$$(sep))
endef
$(call inner-generic-package,$(1),$(2),$(2),target)
endef
container-images-package = $(call inner-container-images-package,$(pkgname),$(call UPPERCASE,$(pkgname)))
