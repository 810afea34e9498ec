package mode

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"odx/target/scsi/record"
	"odx/target/scsi/sense"
)

// Parameters are the mode parameters of a logical unit, shared by all its
// nexuses (MLUS).
type Parameters struct {
	// pages has the code, the subpage, the defaults and the changeable bits of each
	// page; set at creation.
	pages []page
	// records stores saved values; nil if saving is not supported.
	records record.Store
	// era stores current values.
	era record.Store
	// threshold is the threshold descriptor, which changes with mu held.
	threshold atomic.Uint64
	// selecting holds a value during a MODE SELECT, to serialize them: saving takes
	// long.
	selecting chan struct{}

	// Bits that running commands evaluate; they mirror current.
	wce, dSense, swp, tas, lbpere atomic.Bool

	mu      sync.Mutex // guards the fields below
	current [][]byte
	saved   [][]byte
}

// Config describes the mode parameters of a logical unit.
type Config struct {
	// Records stores saved values; with nil, MODE SENSE reports that saving is not
	// supported.
	Records record.Store
	// Era stores current values for the process that takes over from this one.
	Era record.Store
	// WriteThrough: WCE is 0, and cannot be changed.
	WriteThrough bool
	// ReportsSpace: the logical unit reports its resource usage, and has the threshold
	// descriptor of SBC-3 6.5.9.
	ReportsSpace        bool
	ThresholdDescriptor uint64
}

// Open returns the mode parameters of a logical unit, with their saved values.
func Open(c Config) (*Parameters, error) {
	m := &Parameters{pages: pagesOf(&c), records: c.Records, era: c.Era, selecting: make(chan struct{}, 1)}
	m.threshold.Store(c.ThresholdDescriptor)
	m.saved = make([][]byte, len(m.pages))
	for i, p := range m.pages {
		m.saved[i] = p.defaults
	}
	var err error
	if m.records != nil {
		if m.saved, err = m.load(m.records, m.saved); err != nil {
			return nil, err
		}
	}
	if m.current, err = m.load(m.era, m.saved); err != nil {
		return nil, fmt.Errorf("current values: %w", err)
	}
	m.mirror()
	return m, nil
}

// load returns pages with the values of a record, where they are still changeable:
// another version or configuration may have other pages.
func (m *Parameters) load(from record.Store, pages [][]byte) ([][]byte, error) {
	kept, err := from.Load(modeRecord)
	if err != nil {
		return nil, err
	}
	values, err := decodeModes(kept)
	if err != nil {
		return nil, err
	}
	next := make([][]byte, len(pages))
	for i, p := range pages {
		next[i] = bytes.Clone(p)
	}
	m.restore(next, values)
	return next, nil
}

// Savable reports whether values can be saved.
func (m *Parameters) Savable() bool { return m.records != nil }

// Page is a mode page with its values.
type Page struct {
	Code, Subpage byte
	// Values is the whole page with its header.
	Values []byte
}

// Name returns the number of the page, "08h" or "1Ch/02h".
func (p *Page) Name() string {
	if p.Subpage == 0 {
		return fmt.Sprintf("%02Xh", p.Code)
	}
	return fmt.Sprintf("%02Xh/%02Xh", p.Code, p.Subpage)
}

// Saved returns the saved values of all pages, which must not be changed.
func (m *Parameters) Saved() []Page {
	m.mu.Lock()
	defer m.mu.Unlock()
	pages := make([]Page, len(m.pages))
	for i := range m.pages {
		pages[i] = Page{m.pages[i].code, m.pages[i].subpage, m.saved[i]}
	}
	return pages
}

// WriteCache returns WCE: written data need not be on the medium when the command ends.
func (m *Parameters) WriteCache() bool { return m.wce.Load() }

// SenseFormat returns the format of sense data that D_SENSE selects.
func (m *Parameters) SenseFormat() sense.Format {
	if m.dSense.Load() {
		return sense.Descriptor
	}
	return sense.Fixed
}

// WriteProtected returns SWP.
func (m *Parameters) WriteProtected() bool { return m.swp.Load() }

// ReportsAborts returns TAS: commands that another nexus aborts end with TASK ABORTED.
func (m *Parameters) ReportsAborts() bool { return m.tas.Load() }

// ReportsThreshold returns LBPERE: reaching a soft threshold establishes a unit
// attention condition.
func (m *Parameters) ReportsThreshold() bool { return m.lbpere.Load() }

// Reset sets every page to its saved values (SAM-5 6.3.2). An error means that a process
// that takes over from this one may not know of the reset.
func (m *Parameters) Reset(ctx context.Context) error {
	m.mu.Lock()
	same := slices.EqualFunc(m.current, m.saved, bytes.Equal)
	m.current = slices.Clone(m.saved)
	m.mirror()
	m.mu.Unlock()
	if same {
		return nil
	}
	return m.era.Save(ctx, modeRecord, nil)
}

// PowerOff drops the current values that outlive the process. No command may follow.
func (m *Parameters) PowerOff(ctx context.Context) error { return m.era.Save(ctx, modeRecord, nil) }

// SetThreshold changes Config.ThresholdDescriptor.
func (m *Parameters) SetThreshold(to uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.threshold.Store(to)
	m.current, m.saved = m.withThreshold(m.current), m.withThreshold(m.saved)
}

// withThreshold returns pages with the current threshold descriptor.
func (m *Parameters) withThreshold(pages [][]byte) [][]byte {
	i := m.find(pageProvisioning, subpageProvisioning)
	if i < 0 {
		return pages
	}
	pages = slices.Clone(pages)
	pages[i] = putThreshold(bytes.Clone(pages[i]), m.threshold.Load())
	return pages
}

// mirror copies the bits that commands evaluate. The caller holds m.mu.
func (m *Parameters) mirror() {
	for i, p := range m.pages {
		switch {
		case p.subpage != 0:
		case p.code == pageRecovery:
			m.lbpere.Store(m.current[i][7]&recoveryLBPERE != 0)
		case p.code == pageCaching:
			m.wce.Store(m.current[i][2]&cachingWCE != 0)
		case p.code == pageControl:
			m.dSense.Store(m.current[i][2]&controlDSense != 0)
			m.swp.Store(m.current[i][4]&controlSWP != 0)
			m.tas.Store(m.current[i][5]&controlTAS != 0)
		}
	}
}

// find returns the index of a page, or -1.
func (m *Parameters) find(code, subpage byte) int {
	return slices.IndexFunc(m.pages, func(p page) bool { return p.code == code && p.subpage == subpage })
}

// page control values of MODE SENSE (SPC-4 r37 6.13.1).
const (
	pcCurrent    = 0
	pcChangeable = 1
	pcDefault    = 2
	pcSaved      = 3
)

// Sense returns the pages that the CDB of a MODE SENSE selects (SPC-4 r37 6.13, 6.14).
// Its errors are sense data.
func (m *Parameters) Sense(cdb []byte) ([]byte, error) {
	control, code, subpage := cdb[2]>>6, cdb[2]&0x3F, cdb[3]
	if control == pcSaved && m.records == nil {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCSavingParametersNotSupported)
	}
	if code == pageAll && subpage != 0 && subpage != subpageAll {
		return nil, sense.InvalidFieldInCDB(3, 7)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var pages []byte
	for i, p := range m.pages {
		if code != pageAll && p.code != code || subpage != subpageAll && p.subpage != subpage {
			continue
		}
		at := len(pages)
		switch control {
		case pcCurrent:
			pages = append(pages, m.current[i]...)
		case pcChangeable:
			pages = append(pages, p.changeable...)
		case pcSaved:
			pages = append(pages, m.saved[i]...)
		default:
			pages = append(pages, p.defaults...)
			if p.code == pageProvisioning && p.subpage == subpageProvisioning {
				putThreshold(pages[at:], m.threshold.Load())
			}
		}
		if m.records != nil {
			pages[at] |= pageSavable
		}
	}
	if len(pages) == 0 {
		return nil, sense.InvalidFieldInCDB(2, 5)
	}
	return pages, nil
}
