package qos

import "sync"

// Initiators are the limiters of initiators, each of which has its own while it is there.
// Methods may be called concurrently. The zero value has no limits.
type Initiators struct {
	mu      sync.Mutex // guards what follows
	limits  func(initiator string) Limits
	present map[string]*presence
}

// presence is an initiator that is there.
type presence struct {
	limiter Limiter
	times   int // how often it has joined
}

// Set changes the limits: limits returns those of an initiator, for which it must not
// take long. nil: none has limits.
func (i *Initiators) Set(limits func(initiator string) Limits) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.limits = limits
	for name, p := range i.present {
		p.limiter.Set(i.of(name))
	}
}

// of returns the limits of an initiator. The caller holds mu.
func (i *Initiators) of(name string) Limits {
	if i.limits == nil {
		return Limits{}
	}
	return i.limits(name)
}

// Join returns the limiter of an initiator. Each Join ends with a Leave.
func (i *Initiators) Join(name string) *Limiter {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.present[name]
	if p == nil {
		p = new(presence)
		p.limiter.Set(i.of(name))
		if i.present == nil {
			i.present = make(map[string]*presence)
		}
		i.present[name] = p
	}
	p.times++
	return &p.limiter
}

// Leave ends a Join. Work that still waits goes on.
func (i *Initiators) Leave(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.present[name]
	if p == nil {
		return
	}
	if p.times--; p.times == 0 {
		delete(i.present, name)
	}
}
