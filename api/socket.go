package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// socketName is the socket's name in the store's directory.
const socketName = "odx.sock"

// maxSocketPath is the longest path in a socket address (unix(7), sun_path
// with its final zero byte).
const maxSocketPath = 107

// withSocket calls fn with a path of the socket in dir that fits into a socket address,
// however long dir is.
func withSocket(dir string, fn func(path string) error) error {
	path := filepath.Join(dir, socketName)
	if len(path) <= maxSocketPath {
		return fn(path)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// Listen creates the socket in dir, accessible to its owner alone. The caller holds the
// lock of the store in dir, so that an existing socket is stale.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	var l *net.UnixListener
	err := withSocket(dir, func(short string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("API socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // the short path may be invalid then; see socket.Close
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("API socket: %w", err), l.Close())
	}
	return &socket{UnixListener: l, path: path}, nil
}

// socketRetry is the pause before the server tries again to create the socket.
const socketRetry = time.Second

// ServeSocket serves the socket in dir until Shutdown, in the background. It replaces
// Serve, and returns after the first attempt to create the socket. If that fails, for
// lack of an inode on a full disk for example, it logs the error and retries until it
// succeeds.
func (s *Server) ServeSocket(dir string) {
	l, err := Listen(dir)
	if err != nil {
		s.log.WithError(err).Error("API socket not created; retrying, iSCSI service continues")
	}
	go func() {
		if l == nil {
			l = s.retryListen(dir)
		}
		if l == nil {
			close(s.serving)
			return
		}
		s.Serve(l)
	}()
}

// retryListen creates the socket in dir as soon as that is possible; nil after
// Shutdown.
func (s *Server) retryListen(dir string) net.Listener {
	ticker := time.NewTicker(socketRetry)
	defer ticker.Stop()
	for {
		select {
		case <-s.stopping.Done():
			return nil
		case <-ticker.C:
		}
		if l, err := Listen(dir); err == nil {
			s.log.WithField("socket", filepath.Join(dir, socketName)).Info("API socket created")
			return l
		}
	}
}

// socket is a listener that removes its file when it is closed.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Close() error {
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.UnixListener.Close())
}
