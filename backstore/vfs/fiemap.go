package vfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	fsIocFiemap      = 0xc020660b // FS_IOC_FIEMAP of linux/fs.h, of most architectures
	fiemapSync       = 1
	fiemapExtents    = 64
	fiemapExtentLast = 1
)

// fiemap is struct fiemap of linux/fiemap.h, with its extents.
type fiemap struct {
	start, length                  uint64
	flags, mapped, count, reserved uint32
	extents                        [fiemapExtents]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// has reports whether blocks are assigned to the first n bytes of the file.
func (f osFile) has(n int64) bool {
	for at := uint64(0); at < uint64(n); {
		m := fiemap{start: at, length: uint64(n) - at, flags: fiemapSync, count: fiemapExtents}
		err := f.call("fiemap", func(fd int) error {
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFiemap, uintptr(unsafe.Pointer(&m)))
			if errno != 0 {
				return errno
			}
			return nil
		})
		if err != nil || m.mapped == 0 {
			return false
		}
		for _, e := range m.extents[:m.mapped] {
			if e.logical > at {
				return false // a hole
			}
			at = max(at, e.logical+e.length)
			if e.flags&fiemapExtentLast != 0 && at < uint64(n) {
				return false
			}
		}
	}
	return true
}
