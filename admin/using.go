package admin

import (
	"sync"
	"sync/atomic"

	"odx/backstore"
	"odx/conf"
)

// settings are a configuration and how it divides the memory.
type settings struct {
	cfg    *conf.Config
	memory conf.Memory
}

// using says which objects of a store a configuration uses. While a server replaces its
// configuration, those of both are in use.
type using struct {
	now   atomic.Pointer[settings]
	other atomic.Pointer[conf.Config] // nil for none

	// changing is held, shared, from the look whether an object is in use until it has
	// changed.
	changing sync.RWMutex

	mu      sync.Mutex // guards writers
	writers map[string]int
}

// write counts a writer of an object until end is called.
func (u *using) write(name string) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.writers == nil {
		u.writers = map[string]int{}
	}
	u.writers[name]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.writers[name]--; u.writers[name] == 0 {
			delete(u.writers, name)
		}
	}
}

// Written reports whether a client of the administration writes to an object, named as in
// Object. None begins to after Reserve with a configuration that forbids it.
func (s *Store) Written(name string) bool {
	s.using.mu.Lock()
	defer s.using.mu.Unlock()
	return s.using.writers[name] > 0
}

// configurations returns those whose objects are in use.
func (u *using) configurations() []*conf.Config {
	all := []*conf.Config{u.now.Load().cfg}
	if other := u.other.Load(); other != nil {
		all = append(all, other)
	}
	return all
}

// set replaces the other configuration. No change of an object that was looked at before is
// under way when it returns.
func (u *using) set(other *conf.Config) {
	u.changing.Lock()
	defer u.changing.Unlock()
	u.other.Store(other)
}

func (s *Store) cfg() *conf.Config { return s.using.now.Load().cfg }

// Reserve has what another configuration names be in use, too; nil ends that. A server calls
// it before it applies the configuration, and after it has closed what the one before it
// named.
func (s *Store) Reserve(other *conf.Config) { s.using.set(other) }

// Reconfigure makes cfg the configuration of an open store, and memory its division of the
// memory. What the one before it names stays in use until Reserve(nil). An error means that
// nothing has changed.
func (s *Store) Reconfigure(cfg *conf.Config, memory conf.Memory) error {
	s.opening.Lock()
	defer s.opening.Unlock()
	before := s.using.now.Load()
	if s.tokens != nil {
		o := tokenOptions(&cfg.Tokens, &memory)
		if err := s.tokens.Reconfigure(o.Limits, o.Policy); err != nil {
			return err
		}
	}
	o := storeOptions(cfg, &memory, s.log)
	err := s.store.Reconfigure(backstore.Reconfiguration{
		StoreDuplicates: o.StoreDuplicates, CleanBytesPerSecond: o.CleanBytesPerSecond,
		ScrubEvery: cfg.Store.ScrubEvery, ScrubBytesPerSecond: o.ScrubBytesPerSecond,
	})
	if err != nil {
		if s.tokens != nil {
			old := tokenOptions(&before.cfg.Tokens, &before.memory)
			_ = s.tokens.Reconfigure(old.Limits, old.Policy) // they were in force
		}
		return err
	}
	if s.tokens != nil {
		s.tokens.Engine().LimitMemory(memory.Copies)
	}
	s.using.now.Store(&settings{cfg, memory})
	s.using.set(before.cfg)
	return nil
}

// DivideAgain divides the memory of a server for a configuration that is to replace its own.
// What cannot change while it runs, the cache of the store, stays; an error says that the rest
// does not have room for what the configuration asks for.
func (s *Store) DivideAgain(cfg *conf.Config) (conf.Memory, error) {
	now, m := s.Memory(), DivideMemory(cfg)
	m.Total, m.Cache, m.Tables, m.Requests = now.Total, now.Cache, now.Tables, now.Requests
	m.Rest = m.Total - m.Cache - m.Tables - m.Requests - m.Tokens - m.Buffers - m.Copies - m.Views
	if m.Rest < leastRest {
		return m, cfg.Problem("memory", "the caches of views, tokens.memory and limits.buffers take %s more than there is while the server keeps its store.cache of %s; make them smaller, or restart odx serve",
			conf.FormatSize(leastRest-m.Rest), conf.FormatSize(m.Cache))
	}
	return m, nil
}

// leastRest is the memory that must be left for connections and garbage, in bytes.
const leastRest = 16 << 20
