package vfs

import (
	"encoding/hex"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Place identifies a directory. A copy of the directory has another Place.
type Place struct {
	// FileSystem is the UUID of the file system, or zero if unknown.
	FileSystem [16]byte
	Inode      uint64 // of the directory, or zero if unknown
}

// Same reports whether two places do not differ in what is known of both.
func (p Place) Same(q Place) bool {
	var unknown [16]byte
	if p.FileSystem != unknown && q.FileSystem != unknown && p.FileSystem != q.FileSystem {
		return false
	}
	return p.Inode == 0 || q.Inode == 0 || p.Inode == q.Inode
}

func (osFS) Place(dir string) (Place, error) {
	f, err := openDir(dir)
	if err != nil {
		return Place{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Place{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	p := Place{Inode: st.Ino}
	if id, ok := askUUID(f); ok {
		p.FileSystem = id
	} else {
		p.FileSystem = findUUID(st.Dev)
	}
	return p, nil
}

// fsIocGetFSUUID is FS_IOC_GETFSUUID (Linux 6.9).
const fsIocGetFSUUID = 0x80111500

// askUUID queries the file system. Older kernels and some file systems do not support it.
func askUUID(f *os.File) (id [16]byte, ok bool) {
	var answer struct {
		length byte
		uuid   [16]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocGetFSUUID, uintptr(unsafe.Pointer(&answer)))
	return answer.uuid, errno == 0 && answer.length == 16
}

// byUUID has a link to each block device, named by the UUID of its file system.
const byUUID = "/dev/disk/by-uuid"

// findUUID searches for the block device of a file system. It returns zero if there is
// none, as for a file system in memory.
func findUUID(dev uint64) (id [16]byte) {
	names, err := os.ReadDir(byUUID)
	if err != nil {
		return id
	}
	for _, e := range names {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(byUUID, e.Name()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != dev {
			continue
		}
		if b, err := hex.DecodeString(strings.ReplaceAll(e.Name(), "-", "")); err == nil && len(b) == len(id) {
			return [16]byte(b)
		}
		h := fnv.New128a() // a shorter identifier, as of FAT
		h.Write([]byte(e.Name()))
		return [16]byte(h.Sum(nil))
	}
	return id
}
