package pool

import (
	"errors"
	"sync"

	"odx/backstore/segment"
	"odx/backstore/vfs/rados"
	"odx/conf"
)

// siblings reaches the files of the other stores in a pool, which are in other namespaces. Each
// has a connection of its own, made when it is first needed.
type siblings struct {
	cfg *conf.Config

	mu      sync.Mutex // guards what follows; held while connecting
	open    map[string]*rados.Sibling
	closing []func() error
	closed  bool
}

func newSiblings(cfg *conf.Config) *siblings {
	return &siblings{cfg: cfg, open: make(map[string]*rados.Sibling)}
}

// Place implements backstore.Siblings.
func (s *siblings) Place() string { return s.cfg.Pool.Namespace }

// Open implements backstore.Siblings.
func (s *siblings) Open(place, name string) (segment.File, error) {
	files, err := s.files(place)
	if err != nil {
		return nil, err
	}
	return files.Open(name)
}

// Forget implements backstore.Siblings.
func (s *siblings) Forget(place string) {
	s.mu.Lock()
	files := s.open[place]
	s.mu.Unlock()
	if files != nil {
		files.Forget()
	}
}

// files returns the files of the store in a namespace.
func (s *siblings) files(namespace string) (*rados.Sibling, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, segment.ErrClosed
	}
	if files := s.open[namespace]; files != nil {
		return files, nil
	}
	there, where := *s.cfg, *s.cfg.Pool
	where.Namespace = namespace
	there.Pool, there.DataDir = &where, "rados:"+where.Name+"/"+namespace
	p, closing, err := connect(&there)
	if err != nil {
		return nil, err
	}
	s.open[namespace], s.closing = rados.NewSibling(p), append(s.closing, closing)
	return s.open[namespace], nil
}

// close ends the connections.
func (s *siblings) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, closing := range s.closing {
		errs = append(errs, closing())
	}
	return errors.Join(errs...)
}
