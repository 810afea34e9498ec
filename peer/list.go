package peer

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	v1 "odx/api/v1"
	"odx/tokens"
)

const (
	// listFresh is how long what peers have said of the tokens of an initiator counts.
	listFresh = time.Second
	// listWait bounds how long a list waits for peers; those that have not answered by then
	// are in the next one.
	listWait = 500 * time.Millisecond
	// maxLists bounds the initiators whose lists are kept: about 3 MiB, with MaxListed tokens of
	// each.
	maxLists = 8
)

// lists are the tokens that initiators have made on peers. The zero value is ready for use.
type lists struct {
	mu sync.Mutex // guards all, and the fields of the lists
	of map[string]*list
}

// list is what peers have said of the tokens of an initiator.
type list struct {
	asked   time.Time
	byStore map[[16]byte][]tokens.Info
	// answered is closed when all peers have answered, or not in their time.
	answered chan struct{}
}

// List implements tokens.Remote: the tokens that who, an initiator, has made on peers. A peer
// that does not answer in time is waited for in the background.
func (t *Tokens) List(ctx context.Context, who tokens.Requester) []tokens.Info {
	l := t.asked(who.Initiator)
	wait := time.NewTimer(listWait)
	defer wait.Stop()
	select {
	case <-l.answered:
	case <-wait.C:
	case <-ctx.Done():
	}
	t.lists.mu.Lock()
	defer t.lists.mu.Unlock()
	var all []tokens.Info
	for _, p := range t.resolver.All() { // in the order of the configuration
		listed := l.byStore[p.Store()]
		all = append(all, listed[:min(len(listed), tokens.MaxListed-len(all))]...)
	}
	return all
}

// asked returns the list of an initiator, for which peers are asked now unless they were just
// before.
func (t *Tokens) asked(initiator string) *list {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lists.mu.Lock()
	defer t.lists.mu.Unlock()
	l, now := t.lists.of[initiator], time.Now()
	switch {
	case l == nil:
		l = t.lists.add(initiator, now)
	case now.Sub(l.asked) < listFresh || !isClosed(l.answered):
		return l
	}
	l.asked, l.answered = now, make(chan struct{})
	if t.done {
		close(l.answered)
		return l
	}
	answered := l.answered
	var asking sync.WaitGroup
	for _, p := range t.resolver.All() {
		asking.Go(func() { t.listOf(p, initiator, l) })
	}
	t.ending.Go(func() {
		asking.Wait()
		close(answered)
	})
	return l
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// add adds an empty list, in place of the oldest one if there are too many. mu is held.
func (s *lists) add(initiator string, now time.Time) *list {
	if s.of == nil {
		s.of = make(map[string]*list)
	}
	if len(s.of) >= maxLists {
		oldest, first := "", now
		for name, l := range s.of {
			if !l.asked.After(first) {
				oldest, first = name, l.asked
			}
		}
		delete(s.of, oldest)
	}
	l := &list{byStore: make(map[[16]byte][]tokens.Info)}
	s.of[initiator] = l
	return l
}

// listOf asks a peer for the tokens of an initiator. Those of one that does not answer are not
// known any more.
func (t *Tokens) listOf(p Peer, initiator string, l *list) {
	ctx, cancel := context.WithTimeout(context.Background(), t.openTime)
	defer cancel()
	defer context.AfterFunc(t.base, cancel)()
	var a v1.PeerTokens
	err := p.Call(ctx, http.MethodGet, Path+"tokens?initiator="+url.QueryEscape(initiator), nil, &a)
	var listed []tokens.Info
	for _, x := range a.Tokens {
		if len(listed) == tokens.MaxListed || x.Initiator != initiator || len(x.Management) != tokens.ManagementLength {
			continue // one of an older version lists all, without management tokens
		}
		if info, err := infoOf(x); err == nil {
			info.Server = p.Name()
			listed = append(listed, info)
		}
	}
	t.lists.mu.Lock()
	defer t.lists.mu.Unlock()
	if err != nil {
		delete(l.byStore, p.Store())
		return
	}
	l.byStore[p.Store()] = listed
}
