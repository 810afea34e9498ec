package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/tokens"
)

// Server answers requests about one open store.
type Server struct {
	http http.Server
	log  *logrus.Entry
	done chan struct{} // closed when Serve has ended
}

// NewServer returns a server for a store and its tokens. The store is to stay
// open until Shutdown returned.
func NewServer(s *backstore.Store, m *tokens.Manager, log *logrus.Entry) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/store", func(w http.ResponseWriter, r *http.Request) {
		d, err := Describe(r.Context(), s, m)
		if err != nil {
			log.WithError(err).Warn("API: the store cannot be described")
			respond(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		respond(w, http.StatusOK, d)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		respond(w, http.StatusNotFound, failure{"no such resource: " + r.Method + " " + r.URL.Path})
	})
	return &Server{
		http: http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    16 << 10,
		},
		log:  log,
		done: make(chan struct{}),
	}
}

// Serve answers on l until Shutdown. It is called once.
func (s *Server) Serve(l net.Listener) {
	defer close(s.done)
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.log.WithError(err).Error("the API has stopped answering; LUNs are served on")
	}
}

// Shutdown closes the listener, lets requests finish until ctx ends, and waits
// for Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

// failure is the body of an answer that is an error.
type failure struct {
	Error string `json:"error"`
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Only a client that went away makes this fail.
	_ = json.NewEncoder(w).Encode(body)
}
