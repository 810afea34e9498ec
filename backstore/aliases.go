package backstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"odx/backstore/meta"
	"odx/backstore/record"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// aliases are the segments of other stores that have a number of this one.
type aliases struct {
	parts *parts
	opts  *Options

	mu      sync.Mutex // guards what follows; after opMu, before the locks of usage, journal and segments
	byID    map[segment.ID]*alias
	current map[rows.Alias]segment.ID // those that new extents can lie in
	changed map[segment.ID]bool       // since the last cut
	seq     uint64                    // of the last stamp
	open    map[uint64]bool           // adoptions in progress, by their stamps
	makers  map[[16]byte]uint64       // those that are owed a claim, by how often that came up
	due     chan struct{}             // has an element when one came up
}

// alias is a segment of another store.
type alias struct {
	row  rows.Alias
	uses int       // adoptions that make extents in it
	used time.Time // when the last one ended
	gone bool      // it has no extents as of the cut of a checkpoint, and gets none
}

func newAliases(p *parts, o *Options) aliases {
	return aliases{
		parts: p, opts: o, byID: make(map[segment.ID]*alias), current: make(map[rows.Alias]segment.ID),
		changed: make(map[segment.ID]bool), open: make(map[uint64]bool), makers: make(map[[16]byte]uint64), due: make(chan struct{}, 1),
	}
}

// is reports whether a segment is an alias.
func (a *aliases) is(id segment.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byID[id] != nil
}

// among adds the aliases to a set, and returns it.
func (a *aliases) among(set map[segment.ID]bool) map[segment.ID]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.byID {
		set[id] = true
	}
	return set
}

// enter adds an alias. mu is held, or no other goroutine uses the store.
func (a *aliases) enter(id segment.ID, row rows.Alias) *alias {
	al := &alias{row: row, used: time.Now()}
	a.byID[id], a.current[row] = al, id
	return al
}

// Alias is that of a record.
func (p replay) Alias(r *record.Alias) error {
	p.s.parts.segments.Skip(r.ID)
	p.s.aliases.enter(r.ID, r.Row)
	p.s.aliases.changed[r.ID] = true
	return nil
}

// load reads the aliases of the last checkpoint.
func (a *aliases) load(kv meta.Reader) error {
	return eachAlias(kv, func(id segment.ID, row rows.Alias) { a.enter(id, row) })
}

// eachAlias calls fn with the aliases of a checkpoint.
func eachAlias(kv meta.Reader, fn func(id segment.ID, row rows.Alias)) error {
	return kv.Scan([]byte{rows.AliasPrefix}, func(key, value []byte) error {
		row, err := rows.DecodeAlias(value)
		id, ok := rows.AliasID(key)
		if err == nil && !ok {
			err = fmt.Errorf("%w: key of an alias of %d bytes", meta.ErrDamaged, len(key))
		}
		if err == nil {
			fn(id, row)
		}
		return err
	})
}

// openFile opens the segment that an alias stands for.
func (a *aliases) openFile(id segment.ID) (f segment.File, ok bool, err error) {
	a.mu.Lock()
	al := a.byID[id]
	a.mu.Unlock()
	if al == nil {
		return nil, false, nil
	}
	what := fmt.Sprintf("segment %08x of store %x", uint32(al.row.Segment), al.row.Store)
	if a.opts.Siblings == nil {
		return nil, true, fmt.Errorf("%s: %w: this program does not reach the pool that it is in", what, fs.ErrPermission)
	}
	f, err = a.openSegment(al.row)
	if errors.Is(err, segment.ErrCorrupt) {
		a.opts.Siblings.Forget(al.row.Place)
		f, err = a.openSegment(al.row)
	}
	if err != nil {
		return nil, true, fmt.Errorf("%s: %w", what, err)
	}
	return f, true, nil
}

// openSegment opens a segment of another store. segment.ErrCorrupt: the file is not that.
func (a *aliases) openSegment(row rows.Alias) (segment.File, error) {
	f, err := a.opts.Siblings.Open(row.Place, a.opts.segmentFile(row.Segment))
	if err != nil {
		return nil, err
	}
	if err := segment.CheckForeign(f, row.Store, row.Segment); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// useAlias returns the alias of a segment of another store, and makes one if there is none. It is
// kept until unuse.
func (s *Store) useAlias(ctx context.Context, row rows.Alias) (segment.ID, error) {
	a := &s.aliases
	a.mu.Lock()
	if id, ok := a.current[row]; ok {
		a.byID[id].uses++
		a.mu.Unlock()
		return id, nil
	}
	a.mu.Unlock()
	id, err := s.parts.segments.TakeID()
	if err != nil {
		return 0, err
	}
	op, err := s.begin(ctx, &record.Alias{ID: id, Row: row})
	if err != nil {
		return 0, err
	}
	defer op.End()
	a.mu.Lock()
	defer a.mu.Unlock()
	if other, ok := a.current[row]; ok {
		a.byID[other].uses++
		return other, nil
	}
	a.enter(id, row).uses = 1
	a.changed[id] = true
	op.Commit()
	return id, nil
}

// unuse ends useAlias.
func (a *aliases) unuse(id segment.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.byID[id].uses--
	a.byID[id].used = time.Now()
}

// live returns the aliases that have extents, and the sum of their blocks.
func (a *aliases) live() (ids []segment.ID, blocks int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.byID {
		if n := a.parts.usage.Live(id); n > 0 {
			ids, blocks = append(ids, id), blocks+n
		}
	}
	slices.Sort(ids)
	return ids, blocks
}

// aliasCut is the part of the aliases in the cut of a checkpoint.
type aliasCut struct {
	ops  []meta.Op
	ids  []segment.ID // of ops
	gone []segment.ID
}

// cut returns what a checkpoint stores of the aliases. opMu is held exclusively.
func (a *aliases) cut() (c aliasCut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, al := range a.byID {
		if !al.gone && al.uses == 0 && a.parts.usage.Live(id) == 0 {
			al.gone, a.changed[id] = true, true
			if a.current[al.row] == id {
				delete(a.current, al.row)
			}
			c.gone = append(c.gone, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.changed)) {
		op := meta.Op{Key: rows.AliasKey(id)}
		if al := a.byID[id]; al != nil && !al.gone {
			op.Value = al.row.Encode()
		}
		c.ops, c.ids = append(c.ops, op), append(c.ids, id)
	}
	clear(a.changed)
	return c
}

// done ends a cut that is stored: nothing durable names the aliases that are gone.
func (a *aliases) done(c aliasCut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range c.gone {
		a.owe(a.byID[id].row.Store)
		delete(a.byID, id)
		a.parts.segments.Forget(id)
	}
}

// abandon ends a cut that could not be stored. opMu is held exclusively.
func (a *aliases) abandon(c aliasCut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range c.ids {
		a.changed[id] = true
	}
	for _, id := range c.gone {
		al := a.byID[id]
		if al.gone = false; a.current[al.row] == 0 {
			a.current[al.row] = id
		}
	}
}

// owe notes that a maker is to get a claim. mu is held.
func (a *aliases) owe(maker [16]byte) {
	a.makers[maker]++
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// ClaimsDue has an element when a maker is to get a claim.
func (s *Store) ClaimsDue() <-chan struct{} { return s.aliases.due }

// Owed returns the makers that are to get a claim.
func (s *Store) Owed() [][16]byte {
	s.aliases.mu.Lock()
	defer s.aliases.mu.Unlock()
	return slices.Collect(maps.Keys(s.aliases.makers))
}

// claimsAtOnce bounds the segments of a claim.
const claimsAtOnce = 4000

// Claims returns what this store needs of a maker now, and a function to call once the maker has
// settled all of it.
//
// An adoption in progress may hold segments of which there is no alias yet. The claims have a
// stamp from before those, so they end no hold of it; it owes a claim itself if it uses less.
func (s *Store) Claims(maker [16]byte) (claims []Claim, settled func()) {
	a := &s.aliases
	a.mu.Lock()
	defer a.mu.Unlock()
	stamp := Stamp{s.Epoch(), a.seq}
	for seq := range a.open {
		stamp.Seq = min(stamp.Seq, seq-1)
	}
	var ids []uint32
	for _, al := range a.byID {
		if al.row.Store == maker {
			ids = append(ids, uint32(al.row.Segment))
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	c := Claim{Taker: s.ID(), Stamp: stamp}
	for len(ids) > claimsAtOnce {
		c.Last, c.Segments, ids = ids[claimsAtOnce-1], ids[:claimsAtOnce:claimsAtOnce], ids[claimsAtOnce:]
		claims = append(claims, c)
		c.First = c.Last + 1
	}
	c.Last, c.Segments = math.MaxUint32, ids
	now := a.makers[maker]
	return append(claims, c), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.makers[maker] == now {
			delete(a.makers, maker)
		}
	}
}

// Makers returns the stores that this one has adopted extents of, in ascending order.
func (s *Store) Makers() (list [][16]byte) {
	s.aliases.mu.Lock()
	defer s.aliases.mu.Unlock()
	for _, al := range s.aliases.byID {
		if !slices.Contains(list, al.row.Store) {
			list = append(list, al.row.Store)
		}
	}
	slices.SortFunc(list, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return list
}

// bringHomeAfter is how long an alias is left alone after the last adoption of it: copies that
// are deleted or written over soon are never moved.
const bringHomeAfter = 30 * time.Second

// next returns the alias that is to be brought home first: the one with the fewest live blocks,
// whose hold ends soonest. 0: none. Those in later wait until then.
func (a *aliases) next(now time.Time, later map[segment.ID]time.Time) (id segment.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	least := int64(math.MaxInt64)
	for one, al := range a.byID {
		live := a.parts.usage.Live(one)
		if live > 0 && live < least && now.After(later[one]) && a.rested(al, now) {
			id, least = one, live
		}
	}
	return id
}

// rested reports whether nothing was adopted into an alias for a while. mu is held.
func (a *aliases) rested(al *alias, now time.Time) bool {
	return al.uses == 0 && now.Sub(al.used) >= cmp.Or(a.opts.tuning.bringHomeAfter, bringHomeAfter)
}

// rests is rested of the alias with a number.
func (a *aliases) rests(id segment.ID, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	al := a.byID[id]
	return al != nil && a.rested(al, now)
}

// BringHome moves all data that was adopted to segments of this store.
func (s *Store) BringHome(ctx context.Context) error {
	ids, _ := s.aliases.live()
	for _, id := range ids {
		if err := s.saveAlias(ctx, id); err != nil {
			return err
		}
	}
	return s.Checkpoint(ctx)
}

// saveAlias moves what is live in an alias, within the budget of cleaning.
func (s *Store) saveAlias(ctx context.Context, id segment.ID) error {
	s.cleaner.mu.Lock()
	defer s.cleaner.mu.Unlock()
	return corrupt(s.cleaner.cleanSegment(ctx, id, s.cleaner.budget))
}

// AdoptedBytes returns the length of the extents that lie in other stores.
func (s *Store) AdoptedBytes() int64 {
	_, blocks := s.aliases.live()
	return blocks * BlockLength
}

// refuseAdopted refuses to repair a store that has data in others: what a repair makes would not
// have it.
func (m *repair) refuseAdopted() error {
	if _, blocks := m.from.aliases.live(); blocks > 0 {
		return fmt.Errorf("%w: %d bytes of it lie in other stores of its pool, and cannot be repaired here", ErrInvalid, blocks*BlockLength)
	}
	return nil
}
