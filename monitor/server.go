package monitor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/netutil"

	"odx/internal/httpstop"
)

const (
	// maxConnections bounds the clients of a server.
	maxConnections = 32
	// answerLimit bounds the time in which a client takes an answer.
	answerLimit = 30 * time.Second
)

// Server serves handlers to every client that connects, within bounds.
type Server struct {
	http        http.Server
	connections httpstop.Connections
	log         *logrus.Entry
	serving     chan struct{} // closed when Serve has ended
}

// NewServer returns a server of a handler.
func NewServer(h http.Handler, log *logrus.Entry) *Server {
	s := &Server{log: log, serving: make(chan struct{})}
	s.http = http.Server{
		ConnState: s.connections.Track, Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: answerLimit,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	return s
}

// Serve serves l until Shutdown. It is called once.
func (s *Server) Serve(l net.Listener) {
	defer close(s.serving)
	if err := s.http.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		s.log.WithError(err).Error("metrics are not served any more; iSCSI service continues")
	}
}

// Shutdown closes the listener, lets requests finish until ctx ends, and waits for Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.connections.Shutdown(ctx, &s.http)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.serving
	return err
}
