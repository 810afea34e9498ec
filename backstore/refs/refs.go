// Package refs keeps the reference counts of what has a number: of map nodes and
// of extents.
//
// Most things have as many references as when they were new: a node one, an
// extent one for each of its blocks. Kept is what a thing has beyond that, which
// is less than nothing where an extent lost some. Counts are on pages of their
// own, apart from what they count: copying changes nothing else. Pages of only
// zeros are not stored.
package refs

import (
	"odx/backstore/meta"
	"odx/backstore/pages"
)

// PerPage is how many consecutive numbers share a page.
const PerPage = 512

// PageBytes is about the memory of one cached page.
const PageBytes = PerPage*8 + 128

// Kind says what is counted.
type Kind struct {
	Prefix byte  // first byte of the pages' keys
	Least  int64 // no count is less
}

// Options configure Counts.
type Options struct {
	Kind
	KV       meta.Reader
	Clock    *pages.Clock
	MaxBytes int64 // bound of the cache
}

// Counts are the counts of all things of a kind. They are safe for concurrent use;
// a count is changed while no checkpoint takes its cut.
type Counts struct {
	cache *pages.Cache[*Page]
}

// Page has the counts of PerPage consecutive numbers. Its lock guards them.
type Page struct {
	pages.Header
	extra [PerPage]int64
}

// New returns the counts stored in o.KV.
func New(o Options) *Counts {
	return &Counts{cache: pages.New(pages.Config[*Page]{
		KV: o.KV, Clock: o.Clock, Prefix: o.Prefix, MaxObjects: int(o.MaxBytes / PageBytes),
		Decode: func(_ uint64, stored []byte) (*Page, error) { return decode(o.Least, stored) },
	})}
}

// Lock returns the page of a number, locked; the caller calls its Unlock.
func (c *Counts) Lock(number uint64) (*Page, error) { return c.cache.Lock(number / PerPage) }

// Has reports whether the number's count is on the page.
func (p *Page) Has(number uint64) bool { return number/PerPage == p.ID() }

// Extra returns how many references a number of the page has beyond those that
// it had when it was new.
func (p *Page) Extra(number uint64) int64 { return p.extra[number%PerPage] }

// Many numbers come as a list whose entries have the number above some low bits
// (shift), where zero entries are passed over.

// Lead returns how many entries of the list come before the first number that is not
// on the page.
func Lead[E ~uint64](p *Page, list []E, shift uint) int {
	first := p.ID() * PerPage
	for i, e := range list {
		if uint64(e)>>(shift&63)-first >= PerPage && e != 0 {
			return i
		}
	}
	return len(list)
}

// AddEach adds n to the count of each entry's number, up to the first that is not on
// the page, and returns how many entries that are.
func AddEach[E ~uint64](p *Page, list []E, shift uint, n int64) int {
	first := p.ID() * PerPage
	for i, e := range list {
		if e == 0 {
			continue
		}
		at := uint64(e)>>(shift&63) - first
		if at >= PerPage {
			return i
		}
		p.extra[at] += n
	}
	return len(list)
}

// TakeEach takes one from the count of each entry's number, up to the first that has
// none left or is not on the page, and returns how many entries that are.
func TakeEach[E ~uint64](p *Page, list []E, shift uint) int {
	first := p.ID() * PerPage
	for i, e := range list {
		if e == 0 {
			continue
		}
		at := uint64(e)>>(shift&63) - first
		if at >= PerPage || p.extra[at] <= 0 {
			return i
		}
		p.extra[at]--
	}
	return len(list)
}

// Change must be called with the page locked, before Add.
func (c *Counts) Change(p *Page) { c.cache.Change(p) }

// Add adds n, which can be negative, to the count of a number of the page.
func (p *Page) Add(number uint64, n int64) { p.extra[number%PerPage] += n }

// Extra returns how many references a number has beyond those that it had when
// it was new.
func (c *Counts) Extra(number uint64) (int64, error) {
	p, err := c.Lock(number)
	if err != nil {
		return 0, err
	}
	defer p.Unlock()
	return p.Extra(number), nil
}

// Cut is the counts' part of a checkpoint's cut.
func (c *Counts) Cut() *pages.Cut[*Page] { return c.cache.Cut() }

// DirtyBytes returns about the memory of what changed since the last cut.
func (c *Counts) DirtyBytes() int64 { return int64(c.cache.Dirty()) * PageBytes }
