package backstore

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"syscall"

	"odx/backstore/extent"
	"odx/backstore/segment"
)

// errFingerprint: the data of an extent matches its checksums, and is still not
// what was written.
var errFingerprint = errors.New("data does not match its fingerprint")

// errCRC: the data of a block does not match its checksum.
var errCRC = errors.New("data does not match its CRC-32C")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkExtent compares data with the extent's checksums.
func checkExtent(x *extent.Extent, data []byte) error {
	for k := range int(x.Blocks) {
		if crc32.Checksum(data[k*BlockLength:(k+1)*BlockLength], castagnoli) != x.CRC[k] {
			return errCRC
		}
	}
	return nil
}

// damaged reports whether err means that what is stored is not, or cannot be
// read as, what was written.
func damaged(err error) bool {
	return errors.Is(err, errCRC) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, segment.ErrCorrupt) || errors.Is(err, syscall.EIO)
}

// unreadable reports whether err means that what is stored cannot be read: it is
// damaged, or its file cannot be (a directory has its name, this user may not open it).
// What this process lacks at present is not meant.
func unreadable(err error) bool {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, fs.ErrClosed} {
		if errors.Is(err, passing) {
			return false
		}
	}
	_, ofHost := errors.AsType[*fs.PathError](err)
	return ofHost || damaged(err)
}
