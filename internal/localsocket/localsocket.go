// Package localsocket makes and finds Unix sockets in the directory of a store, however
// long its path is, and sends packets with descriptors over them.
package localsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// maxPath is the longest path in a socket address (unix(7), sun_path with its final zero
// byte).
const maxPath = 107

// At calls fn with a path of the socket name in dir that fits into a socket address. The
// path is valid until fn returns.
func At(dir, name string, fn func(path string) error) error {
	path := filepath.Join(dir, name)
	if len(path) <= maxPath {
		return fn(path)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// Listener is a listening socket that removes its file when it is closed.
type Listener struct {
	*net.UnixListener
	path string
}

// Listen creates the socket name in dir, accessible to its owner alone. network is unix or
// unixpacket. The caller has the lock of the store in dir, so that an existing socket is
// stale.
func Listen(network, dir, name string) (*Listener, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var l *net.UnixListener
	err := At(dir, name, func(short string) (err error) {
		l, err = net.ListenUnix(network, &net.UnixAddr{Name: short, Net: network})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // the short path may be invalid then; see Close
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Listener{l, path}, nil
}

// Close closes the socket and removes its file.
func (l *Listener) Close() error {
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.UnixListener.Close())
}
