package known

import (
	"errors"
	"fmt"
	"slices"

	"odx/backstore/extent"
	"odx/backstore/meta"
)

// Prune is one pass over the table, which drops the names of blocks that are gone, and
// bounds the number of names: the pages of the store that was added first go first, of
// them those of the lowest slots. The caller calls Next until it returns false, each time
// in an operation of its own, then End.
type Prune struct {
	t    *Table
	ids  []uint64 // of the pages not yet visited
	all  []uint64
	most int64

	before int64 // names when it began
	found  int64 // names on the visited pages that were left
	kept   map[uint64]int64
	excess bool
}

// NewPrune begins a pass over what the last checkpoint stored; pages that were added after
// it are not visited. At most most names of these are left.
func (t *Table) NewPrune(before, most int64) (*Prune, error) {
	p := &Prune{t: t, most: most, before: before}
	err := t.kv.Scan([]byte{PagePrefix}, func(key, _ []byte) error {
		if id, ok := pageOfKey(key); ok {
			p.all = append(p.all, id)
		}
		return nil
	})
	if err != nil && !errors.Is(err, meta.ErrDamaged) {
		return nil, fmt.Errorf("known names: %w", err)
	}
	p.ids, p.kept = p.all, make(map[uint64]int64)
	return p, nil
}

// Next visits a page, and reports whether there are more. live makes those of slots 0 that
// name no block any more.
func (p *Prune) Next(live func(slots []extent.Slot) error) (more bool, err error) {
	if len(p.ids) == 0 && !p.excess && p.found > p.most {
		p.excess = true // a second time, to drop pages from the first one on
		p.ids = slices.DeleteFunc(p.all, func(id uint64) bool { return p.kept[id] == 0 })
	}
	if len(p.ids) == 0 || p.excess && p.found <= p.most {
		return false, nil
	}
	id := p.ids[0]
	p.ids = p.ids[1:]
	known, err := p.t.knows(uint16(id >> (64 - numberBits)))
	if err != nil {
		return false, err
	}
	if p.excess || !known {
		p.found -= p.kept[id]
		return true, p.t.clearPage(id)
	}
	n, err := p.t.prunePage(id, live)
	p.kept[id] = int64(n)
	p.found += int64(n)
	return true, err
}

// End notes how many names there are: those that were found, and those that were added
// since the pass began, of which some were found too. The next pass counts these once.
func (p *Prune) End() error {
	s, err := p.t.lockStores()
	if err != nil {
		return err
	}
	defer s.Unlock()
	p.t.stores.Change(s)
	s.names = p.found + max(0, s.names-p.before)
	return nil
}

// knows reports whether a store has the number.
func (t *Table) knows(number uint16) (bool, error) {
	s, err := t.lockStores()
	if err != nil {
		return false, err
	}
	defer s.Unlock()
	return slices.ContainsFunc(s.list, func(one store) bool { return one.number == number }), nil
}

// clearPage drops the names of a page.
func (t *Table) clearPage(id uint64) error {
	p, err := t.lockPage(id)
	if err != nil {
		return err
	}
	defer p.Unlock()
	t.pages.Change(p)
	p.clear()
	return nil
}

// prunePage drops the names of a page whose blocks are gone, and returns how many are left.
func (t *Table) prunePage(id uint64, live func(slots []extent.Slot) error) (left int, err error) {
	p, err := t.pages.Lock(id)
	if errors.Is(err, meta.ErrDamaged) {
		return 0, t.clearPage(id)
	}
	if err != nil {
		return 0, err
	}
	defer p.Unlock()
	now := p.local
	if err := live(now[:]); err != nil || now == p.local {
		return p.count, err
	}
	t.pages.Change(p)
	for at := range now {
		if now[at] == 0 {
			p.drop(at)
		}
	}
	p.forgetSeries()
	return p.count, nil
}
