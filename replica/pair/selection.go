package pair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"odx/backstore"
)

// An entry of the configuration whose source ends with an asterisk selects volumes of a peer, or
// its files, by the beginning of their names: those that are there whenever the entry is due.
// Each becomes a replica with a record, a plan and figures of its own.

// Offered is a volume, or file:NAME, that another server can keep a replica of.
type Offered struct {
	Object string
	// Pairs are those that it has with the server that asks.
	Pairs []ID
}

// maxOffered bounds how many a prefix selects.
const maxOffered = maxPairs

// Offered returns the volumes, or files with "file:" before it, whose names begin with a prefix,
// for a server with a store. Snapshots and what is a replica itself are none of them: two servers
// that select all of each other would make replicas of replicas without an end.
func (m *Manager) Offered(from [16]byte, prefix string) ([]Offered, error) {
	all, err := m.records()
	if err != nil {
		return nil, err
	}
	volumes, files := map[ID][]*record{}, map[string][]*record{}
	for _, r := range all {
		if r.File && r.Role == Source {
			files[r.Object] = append(files[r.Object], r)
		} else {
			volumes[r.Volume] = append(volumes[r.Volume], r)
		}
	}
	name, file := isFile(prefix)
	objects := m.store.Volumes()
	if file {
		objects = m.store.Files()
	}
	var list []Offered
	for _, v := range objects {
		if v.ReadOnly() || strings.HasPrefix(v.Name(), ".") || !strings.HasPrefix(v.Name(), name) {
			continue
		}
		pairs := volumes[v.ID()]
		if file {
			pairs = slices.Concat(pairs, files[v.Name()])
		}
		o := Offered{Object: objectName(file, v.Name())}
		if slices.ContainsFunc(pairs, func(r *record) bool { return r.Role != Source || r.Move != nil && !r.Move.Arrives }) {
			continue
		}
		for _, r := range pairs {
			if r.PeerStore == from {
				o.Pairs = append(o.Pairs, r.ID)
			}
		}
		if list = append(list, o); len(list) > maxOffered {
			return nil, fmt.Errorf("%w: more than %d names begin with %.70q; use a longer prefix", backstore.ErrTooMany, maxOffered, prefix)
		}
	}
	return list, nil
}

// prefix returns the beginning of the names of the sources of a plan that selects them; ok is
// false if the plan has one source.
func (p *Plan) prefix() (prefix string, ok bool) { return strings.CutSuffix(p.Source, "*") }

// selector is the name of the plan of an entry that selects. No replica has such a name.
func selector(entry string) string { return "/" + entry }

// chosen returns the plan of one of the sources that p selects.
func (p *Plan) chosen(object string) Plan {
	prefix, _ := p.prefix()
	rest := strings.TrimPrefix(object, prefix)
	to, _ := isFile(object)
	if p.To != "" {
		to = strings.TrimSuffix(p.To, "*") + rest
	}
	c := *p
	c.Entry, c.Source, c.To, c.Name = p.Name, object, to, strings.ReplaceAll(to, "/", ":")
	return c
}

// of returns the plan that p gives a pair that there is.
func (p *Plan) of(r *record) Plan {
	c := *p
	c.Entry, c.Source, c.To, c.Name = p.Name, r.PeerObject, r.Object, r.Name
	return c
}

// started reports whether p has started a pair, and still selects it.
func (p *Plan) started(r *record) bool {
	prefix, _ := p.prefix()
	_, files := isFile(prefix)
	return r.Entry == p.Name && r.PeerName == p.Peer && r.File == files && strings.HasPrefix(r.PeerObject, prefix)
}

// effective returns the plans of all replicas by name: those of entries with one source, and what
// the others select of the pairs that there are and of what peers have offered. problems is what
// an entry cannot select, by its name. A source, and a name, is that of the first entry that has
// it; those with one source come before.
func effective(entries []Plan, offered map[string]offer, all []*record) (plans map[string]Plan, problems map[string]error) {
	plans, problems = map[string]Plan{}, map[string]error{}
	type source struct{ peer, object string }
	sources := map[source]bool{}
	for _, p := range entries {
		if _, selects := p.prefix(); !selects {
			p.Entry = p.Name
			plans[p.Name], sources[source{p.Peer, p.Source}] = p, true
		}
	}
	for i := range entries {
		p := &entries[i]
		if _, selects := p.prefix(); !selects {
			continue
		}
		plans[selector(p.Name)] = *p
		add := func(c Plan) {
			if _, taken := plans[c.Name]; taken {
				problems[p.Name] = errors.Join(problems[p.Name], fmt.Errorf("%s of %s: %w: another replica has the name %s; give the entry another to, or %s an entry of its own", c.Source, c.Peer, backstore.ErrExists, c.Name, c.Source))
				return
			}
			plans[c.Name] = c
		}
		at := map[ID]string{} // pair → what it follows
		for _, o := range offered[p.Name].list {
			for _, id := range o.Pairs {
				at[id] = o.Object
			}
		}
		followed := map[string]bool{} // what has a replica here
		for _, r := range all {
			object, listed := at[r.ID]
			if listed {
				followed[object] = true
			} else if r.Orphan && r.PeerStore == offered[p.Name].store {
				followed[r.PeerObject] = true
			}
			if q, planned := plans[r.Name]; planned && (q.Entry != p.Name) {
				continue // that of another entry
			}
			if listed || p.started(r) {
				add(p.of(r))
			}
		}
		for _, o := range offered[p.Name].list {
			if !followed[o.Object] && !sources[source{p.Peer, o.Object}] {
				sources[source{p.Peer, o.Object}] = true
				add(p.chosen(o.Object))
			}
		}
	}
	return plans, problems
}

// offer is what a peer has offered to an entry.
type offer struct {
	store ID
	list  []Offered
}

// selectSources asks a peer for the sources that an entry selects.
func (m *Manager) selectSources(ctx context.Context, p Plan) error {
	err := m.askOffered(ctx, p)
	if err == nil {
		err = m.settle(p.Name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.unstarted, selector(p.Name))
		return nil
	}
	m.noteUnstarted(selector(p.Name), err)
	return err
}

func (m *Manager) askOffered(ctx context.Context, p Plan) error {
	link, ok := m.o.Named(p.Peer)
	if !ok {
		return fmt.Errorf("peer %s: %w: the configuration names no such peer", p.Peer, backstore.ErrNotFound)
	}
	prefix, _ := p.prefix()
	list, err := link.Offered(ctx, m.store.ID(), prefix)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(o Offered) bool { return !strings.HasPrefix(o.Object, prefix) })
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offered == nil {
		s.offered = map[string]offer{}
	}
	s.offered[p.Name] = offer{link.Store(), list}
	return nil
}

// settle makes the plans follow what there is, and returns what an entry cannot select.
func (m *Manager) settle(entry string) error {
	all, err := m.records()
	if err != nil {
		return err
	}
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	plans, problems := effective(s.entries, s.offered, all)
	same := len(plans) == len(s.plans)
	for name := range plans {
		_, had := s.plans[name]
		same = same && had
	}
	s.plans = plans
	if !same {
		s.changedLocked()
	}
	return problems[entry]
}

// isSelector reports whether name is that of an entry that selects, and returns the entry.
func isSelector(name string) (entry string, ok bool) { return strings.CutPrefix(name, "/") }
