// Package virtualdisks sends a real image, a root file system of Debian in a partition
// of a disk, through everything that odx does with virtual disks. After each step
// qemu-img, vhdiinfo and e2fsck judge what came of it.
package virtualdisks
