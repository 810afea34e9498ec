// Package refs stores the reference counts of numbered objects: map nodes and extents.
//
// Most objects have the references of a new object: a node one, an extent one per
// block. The count stored is the difference to that: negative for an extent that lost
// some. Counts are on separate pages from the objects, so that a copy changes only
// counts. Pages of zeros are not stored.
package refs

import (
	"odx/backstore/meta"
	"odx/backstore/pages"
)

// PerPage is the number of consecutive counts on a page.
const PerPage = 512

// PageBytes is the approximate memory of one cached page.
const PageBytes = PerPage*8 + 128

// Kind describes the counts of one kind of object.
type Kind struct {
	Prefix byte  // first byte of the pages' keys
	Least  int64 // minimum of an extra count
}

// Options configure Counts.
type Options struct {
	Kind
	KV       meta.Reader
	Clock    *pages.Clock
	MaxBytes int64 // bound of the cache in bytes
}

// Counts are the counts of all objects of a kind. They are safe for concurrent use.
// Counts must not change during a checkpoint cut.
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

// Lock returns the locked page of a number. The caller must call its Unlock.
func (c *Counts) Lock(number uint64) (*Page, error) { return c.cache.Lock(number / PerPage) }

// Has reports whether the number's count is on the page.
func (p *Page) Has(number uint64) bool { return number/PerPage == p.ID() }

// Extra returns the extra count of a number of the page: its references minus those of
// a new object.
func (p *Page) Extra(number uint64) int64 { return p.extra[number%PerPage] }

// In a list of numbers, e>>shift is the number of entry e. Zero entries are skipped.

// Lead returns the number of entries of the list before the first number that is not on
// the page.
func Lead[E ~uint64](p *Page, list []E, shift uint) int {
	first := p.ID() * PerPage
	for i, e := range list {
		if uint64(e)>>(shift&63)-first >= PerPage && e != 0 {
			return i
		}
	}
	return len(list)
}

// AddEach adds n to the count of each entry's number, up to the first number that is
// not on the page. It returns the number of entries processed.
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

// TakeEach subtracts 1 from the count of each entry's number, up to the first number
// with no extra count or not on the page. It returns the number of entries processed.
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

// Change marks the page dirty. It must be called with the page locked, before Add.
func (c *Counts) Change(p *Page) { c.cache.Change(p) }

// Add adds n, which may be negative, to the count of a number of the page.
func (p *Page) Add(number uint64, n int64) { p.extra[number%PerPage] += n }

// Extra returns the extra count of a number: its references minus those of a new
// object.
func (c *Counts) Extra(number uint64) (int64, error) {
	p, err := c.Lock(number)
	if err != nil {
		return 0, err
	}
	defer p.Unlock()
	return p.Extra(number), nil
}

// Cut is the counts' part of a checkpoint cut.
func (c *Counts) Cut() *pages.Cut[*Page] { return c.cache.Cut() }

// DirtyBytes returns the approximate memory, in bytes, of the pages changed since the
// last checkpoint cut.
func (c *Counts) DirtyBytes() int64 { return int64(c.cache.Dirty()) * PageBytes }
