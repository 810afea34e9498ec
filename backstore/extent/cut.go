package extent

import (
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/refs"
)

// Cut is the table's part of a checkpoint cut.
type Cut struct {
	pages  *pages.Cut[*page]
	counts *pages.Cut[*refs.Page]
}

// Cut takes the table's part of a checkpoint cut.
func (t *Table) Cut() *Cut { return &Cut{pages: t.cache.Cut(), counts: t.counts.Cut()} }

// Parts returns the encoders of the changed objects by the first byte of their keys.
// Each emits its keys in ascending order.
func (c *Cut) Parts() map[byte]func(emit func(meta.Op) error) error {
	return map[byte]func(emit func(meta.Op) error) error{PagePrefix: c.pages.Encode, CountPrefix: c.counts.Encode}
}

// Done ends the cut after the metadata engine has stored it.
func (c *Cut) Done() { c.pages.Done(); c.counts.Done() }

// Abandon ends a cut that could not be stored; its objects remain dirty.
func (c *Cut) Abandon() { c.pages.Abandon(); c.counts.Abandon() }

// DirtyBytes returns the approximate memory, in bytes, of the objects changed since the
// last checkpoint cut.
func (t *Table) DirtyBytes() int64 {
	return int64(t.cache.Dirty())*pageBytes(int(t.unit)) + t.counts.DirtyBytes()
}
