################################################################################
#
# app-images: an example; digest and SHA-256 are not those of an image
#
################################################################################

APP_IMAGES_VERSION = 1.2
APP_IMAGES_LICENSE = PROPRIETARY
APP_IMAGES_REDISTRIBUTE = NO
APP_IMAGES_CONTAINERS = \
	app-$(APP_IMAGES_VERSION).tar|ghcr.io/owner/app:$(APP_IMAGES_VERSION)@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef|linux/arm64|fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210

$(eval $(container-images-package))
