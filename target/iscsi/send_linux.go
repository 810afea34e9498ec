package iscsi

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nonblockingWriter writes to a socket with one writev, without blocking. Package net has
// only blocking writes.
type nonblockingWriter struct {
	raw   syscall.RawConn
	try   func(fd uintptr) bool // a single attempt; created once, so that calls do not allocate
	iov   []unix.Iovec
	n     int
	errno syscall.Errno
}

// newNonblockingWriter returns nil for connections that are not sockets.
func newNonblockingWriter(nc net.Conn) *nonblockingWriter {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &nonblockingWriter{raw: raw}
	w.try = func(fd uintptr) bool {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		w.n, w.errno = int(n), errno
		return true // do not block
	}
	return w
}

// write returns the number of bytes written: 0 without an error if the socket buffer is
// full.
func (w *nonblockingWriter) write(pieces [][]byte) (int, error) {
	w.iov = w.iov[:0]
	for _, b := range pieces {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		w.iov = append(w.iov, v)
	}
	err := w.raw.Write(w.try)
	clear(w.iov)
	if err != nil {
		return 0, err
	}
	switch w.errno {
	case 0:
		return w.n, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, w.errno
}
