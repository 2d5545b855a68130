################################################################################
#
# dockersave
#
################################################################################

DOCKERSAVE_VERSION = @VERSION@
DOCKERSAVE_SITE = https://github.com/antmicro/dockersave/releases/download/v$(DOCKERSAVE_VERSION)
DOCKERSAVE_SOURCE = dockersave-$(DOCKERSAVE_VERSION)-vendored.tar.gz
DOCKERSAVE_LICENSE = Apache-2.0
DOCKERSAVE_LICENSE_FILES = LICENSE

# What --version says, and the least that its clock counts as.
DOCKERSAVE_CARGO_ENV = DOCKERSAVE_COMMIT=@COMMIT@ SOURCE_DATE_EPOCH=@EPOCH@

$(eval $(cargo-package))
