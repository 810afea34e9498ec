package peer

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	v1 "odx/api/v1"
	"odx/tokens"
)

// Directory has the peers of a server: the Resolver of its configuration. It can be replaced
// while it is used. The zero value has none.
type Directory struct {
	now      atomic.Pointer[[]*Remote]
	changing sync.Mutex
}

// peers returns the peers in their order.
func (d *Directory) peers() []*Remote {
	if list := d.now.Load(); list != nil {
		return *list
	}
	return nil
}

// Replace makes list the peers. Holds of others stay usable until they are released.
func (d *Directory) Replace(list []*Remote) {
	d.changing.Lock()
	defer d.changing.Unlock()
	before := d.peers()
	next := slices.Clone(list)
	d.now.Store(&next)
	for _, r := range before {
		if !slices.Contains(next, r) {
			r.Close()
		}
	}
}

// Close ends idle connections.
func (d *Directory) Close() { d.Replace(nil) }

// Resolve implements Resolver.
func (d *Directory) Resolve(store [16]byte) (Peer, bool) {
	for _, r := range d.peers() {
		if r.store == store {
			return r, true
		}
	}
	return nil, false
}

// All implements Resolver.
func (d *Directory) All() []Peer {
	list := d.peers()
	all := make([]Peer, len(list))
	for i, r := range list {
		all[i] = r
	}
	return all
}

// ByName returns the peer with a name.
func (d *Directory) ByName(name string) (Peer, bool) {
	for _, r := range d.peers() {
		if r.name == name {
			return r, true
		}
	}
	return nil, false
}

// Status describes all peers, by name.
func (d *Directory) Status() []RemoteStatus {
	var list []RemoteStatus
	for _, r := range d.peers() {
		list = append(list, r.Status())
	}
	slices.SortFunc(list, func(a, b RemoteStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Ask asks all peers, at once, whether they are there, so that Status is of now.
func (d *Directory) Ask(ctx context.Context) {
	var asking sync.WaitGroup
	for _, r := range d.peers() {
		asking.Go(func() { _ = r.Hello(ctx) }) // Status has the error
	}
	asking.Wait()
}

// TokenList is what a peer says of its tokens, or why it does not.
type TokenList struct {
	Peer   string
	Tokens []tokens.Info
	// More are not listed.
	More int
	Err  error
}

// Tokens asks all peers, at once, for their live tokens.
func (d *Directory) Tokens(ctx context.Context) []TokenList {
	list := d.peers()
	all := make([]TokenList, len(list))
	var asking sync.WaitGroup
	for i, r := range list {
		asking.Go(func() {
			all[i].Peer = r.name
			var a v1.PeerTokens
			if all[i].Err = r.Call(ctx, http.MethodGet, Path+"tokens", nil, &a); all[i].Err != nil {
				return
			}
			all[i].More = max(a.More, 0)
			for _, t := range a.Tokens {
				info, err := infoOf(t)
				if err != nil {
					all[i].Err = err
					return
				}
				info.Server = r.name
				all[i].Tokens = append(all[i].Tokens, info)
			}
		})
	}
	asking.Wait()
	return all
}
