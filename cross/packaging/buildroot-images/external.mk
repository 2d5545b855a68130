include $(BR2_EXTERNAL_DOCKERSAVE_PATH)/dockersave-images.mk
include $(sort $(wildcard $(BR2_EXTERNAL_DOCKERSAVE_PATH)/package/*/*.mk))
