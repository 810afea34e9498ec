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

// socketName is the socket's name in the folder of the store.
const socketName = "odx.sock"

// maxSocketPath is the longest path in a socket address (unix(7), sun_path
// with its final zero byte).
const maxSocketPath = 107

// withSocket calls fn with a path of the socket in dir that fits into a socket
// address, however long dir is: a short way to the same file.
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

// Listen makes the socket in dir, for its owner alone. The caller holds the
// lock of the store in dir, so that a socket which is there already was left by
// a server that is dead.
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
	l.SetUnlinkOnClose(false) // by a name that may be gone; see socket.Close
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("API socket: %w", err), l.Close())
	}
	return &socket{UnixListener: l, path: path}, nil
}

// socketRetry is how long the server waits before it tries to make the socket again.
const socketRetry = time.Second

// ServeSocket answers on the socket in dir until Shutdown, in the background. It
// returns when the first attempt to make the socket is over. One that cannot be made,
// for lack of an inode on a full disk for example, is logged, and tried again until it
// can; LUNs are served without it. Serve is not called then.
func (s *Server) ServeSocket(dir string) {
	l, err := Listen(dir)
	if err != nil {
		s.log.WithError(err).Error("commands cannot ask this server: its socket cannot be created; retrying, LUNs are served")
	}
	go func() {
		if l == nil {
			l = s.listenLater(dir)
		}
		if l == nil {
			close(s.serving)
			return
		}
		s.Serve(l)
	}()
}

// listenLater makes the socket in dir as soon as that is possible; nil when
// Shutdown was called before.
func (s *Server) listenLater(dir string) net.Listener {
	again := time.NewTicker(socketRetry)
	defer again.Stop()
	for {
		select {
		case <-s.stopping.Done():
			return nil
		case <-again.C:
		}
		if l, err := Listen(dir); err == nil {
			s.log.WithField("socket", filepath.Join(dir, socketName)).Info("the socket is made: commands can ask this server")
			return l
		}
	}
}

// socket is a listener that takes its file away when it closes.
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
