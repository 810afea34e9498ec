// Package ipxe boots a small system from a LUN by iPXE, an initiator that shares no
// code with libiscsi or the Linux kernel, in a machine emulated by qemu.
package ipxe
