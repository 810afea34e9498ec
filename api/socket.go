package api

import (
	"fmt"
	"net"
	"path/filepath"
	"time"

	"odx/internal/localsocket"
)

// socketName is the socket's name in the store's directory.
const socketName = "odx.sock"

// Listen creates the socket in dir, accessible to its owner alone. The caller holds the
// lock of the store in dir, so that an existing socket is stale.
func Listen(dir string) (net.Listener, error) {
	l, err := localsocket.Listen("unix", dir, socketName)
	if err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	return peerListener{l}, nil
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
