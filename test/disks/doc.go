// Package disks sends images of real systems through all that odx does with virtual
// disks. After each step qemu, libvhdi and e2fsck judge what came of it.
package disks
