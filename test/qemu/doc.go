// Package qemu lets qemu-img, the block layer of a hypervisor with its own
// iSCSI driver, put disk images into a LUN and take them out again.
package qemu
