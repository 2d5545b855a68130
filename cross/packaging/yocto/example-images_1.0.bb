SUMMARY = "An example: the container images of a device, loaded at its first boot"
# What the images themselves contain has licences of its own.
LICENSE = "CLOSED"

inherit dockersave-images

# Not in a build of everything: digest and checksum are examples.
EXCLUDE_FROM_WORLD = "1"
SRC_URI = "oci://ghcr.io/owner/app;tag=1.2;digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef;name=app"
SRC_URI[app.sha256sum] = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
