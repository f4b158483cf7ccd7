"""Corral: server virtualization on QEMU/KVM and libvirt."""
