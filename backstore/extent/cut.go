package extent

import (
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/refs"
)

// Cut is the table's part of a checkpoint's cut.
type Cut struct {
	pages  *pages.Cut[*page]
	counts *pages.Cut[*refs.Page]
}

// Cut takes the table's part of a checkpoint's cut.
func (t *Table) Cut() *Cut { return &Cut{pages: t.cache.Cut(), counts: t.counts.Cut()} }

// Parts returns what encodes the changed objects, each with the first byte of
// its keys, which come in order.
func (c *Cut) Parts() map[byte]func(emit func(meta.Op) error) error {
	return map[byte]func(emit func(meta.Op) error) error{pagePrefix: c.pages.Encode, countPrefix: c.counts.Encode}
}

// Done ends the cut after the engine holds it.
func (c *Cut) Done() { c.pages.Done(); c.counts.Done() }

// Abandon ends a cut that could not be stored.
func (c *Cut) Abandon() { c.pages.Abandon(); c.counts.Abandon() }

// DirtyBytes returns about the memory of what changed since the last cut.
func (t *Table) DirtyBytes() int64 {
	return int64(t.cache.Dirty())*pageBytes(int(t.unit)) + t.counts.DirtyBytes()
}
