package localsocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxPacket bounds a packet, in bytes.
const MaxPacket = 4096

// maxFiles is how many descriptors Receive looks for; a packet has one at most.
const maxFiles = 4

// Send sends a packet, with the descriptor fd unless it is negative (SCM_RIGHTS, unix(7)).
func Send(conn *net.UnixConn, data []byte, fd int) error {
	if len(data) > MaxPacket {
		return fmt.Errorf("a packet of %d bytes, %d is the limit", len(data), MaxPacket)
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	_, _, err := conn.WriteMsgUnix(data, rights, nil)
	return err
}

// Receive returns the next packet, and the descriptor that came with it, or nil; io.EOF at
// the end of the connection.
func Receive(conn *net.UnixConn) ([]byte, *os.File, error) {
	data, rights := make([]byte, MaxPacket), make([]byte, unix.CmsgSpace(maxFiles*4))
	n, m, flags, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, nil, err
	}
	files, err := descriptors(rights[:m])
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(files) > 1:
		err = fmt.Errorf("a packet with %d descriptors, flags %#x", len(files), flags)
	case n == 0 && len(files) == 0:
		err = io.EOF
	case len(files) == 1:
		return data[:n], files[0], nil
	default:
		return data[:n], nil, nil
	}
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return nil, nil, err
}

// descriptors returns the files that came in a control message.
func descriptors(control []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, err
}
