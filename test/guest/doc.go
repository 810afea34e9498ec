// Package guest serves disks to machines that qemu emulates: the Linux kernel's
// initiator with file systems, multipath and sg3-utils, and iPXE, which boots from one.
package guest
