package disk_test

import (
	"odx/backstore"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

var (
	_ disk.Container = (*backstore.Volume)(nil)
	_ disk.Container = (*disktest.Memory)(nil)
)
