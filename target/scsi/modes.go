package scsi

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// modePage describes a mode page (SPC-4 r37 7.5): its default values, and ones
// in the bits that MODE SELECT can change. Both are whole pages with header.
type modePage struct {
	code, subpage        byte
	defaults, changeable []byte
}

// Mode pages and the bits of them that the device server looks at.
const (
	pageRecovery = 0x01
	pageCaching  = 0x08
	pageControl  = 0x0A
	pageAll      = 0x3F
	subpageAll   = 0xFF

	recoveryLBPERE = 0x80 // byte 7
	cachingWCE     = 0x04 // byte 2
	controlDSense  = 0x04 // byte 2
	controlSWP     = 0x08 // byte 4
	controlTAS     = 0x40 // byte 5
)

// modePages lists the pages that every logical unit has, in the order in which
// MODE SENSE returns them.
var modePages = [...]modePage{
	{ // Read-Write Error Recovery (SBC-3 6.5.8): AWRE, ARRE
		code:       pageRecovery,
		defaults:   []byte{pageRecovery, 0x0A, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		changeable: []byte{pageRecovery, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	},
	{ // Disconnect-Reconnect (SPC-4 r37 7.5.10)
		code:       0x02,
		defaults:   []byte{0x02, 0x0E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		changeable: []byte{0x02, 0x0E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	},
	{ // Caching (SBC-3 6.5.5): the write cache is on
		code:       pageCaching,
		defaults:   []byte{pageCaching, 0x12, cachingWCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		changeable: []byte{pageCaching, 0x12, cachingWCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	},
	{ // Control (SPC-4 r37 7.5.8): GLTSD; unrestricted reordering, QERR 0; no busy timeout limit
		code:       pageControl,
		defaults:   []byte{pageControl, 0x0A, 0x02, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0},
		changeable: []byte{pageControl, 0x0A, controlDSense, 0, controlSWP, controlTAS, 0, 0, 0, 0, 0, 0},
	},
	{ // Control Extension (SPC-4 r37 7.5.9)
		code: pageControl, subpage: 0x01,
		defaults:   []byte{0x40 | pageControl, 0x01, 0, 0x1C, 31: 0},
		changeable: []byte{0x40 | pageControl, 0x01, 0, 0x1C, 31: 0},
	},
	{ // Informational Exceptions Control (SPC-4 r37 7.5.11): DEXCPT, nothing is reported
		code:       0x1C,
		defaults:   []byte{0x1C, 0x0A, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		changeable: []byte{0x1C, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	},
}

// modeRecord is the key under which mode parameters are saved.
const modeRecord = "modes"

// savedModesVersion is the version of savedModes.
const savedModesVersion = 1

// savedModes is the record of saved mode parameters. Its first form, which has no
// version, was the pages alone, one after the other.
type savedModes struct {
	Version int      `json:"version"`
	Pages   [][]byte `json:"pages"` // as MODE SELECT has them
}

// encodeModes returns the record of pages.
func encodeModes(pages [][]byte) ([]byte, error) {
	return json.Marshal(savedModes{Version: savedModesVersion, Pages: pages})
}

// decodeModes returns the pages of a record, one after the other.
func decodeModes(record []byte) ([]byte, error) {
	if len(record) == 0 || record[0] != '{' {
		return record, nil // '{' would be a page that there is not
	}
	var s savedModes
	if err := json.Unmarshal(record, &s); err != nil {
		return nil, fmt.Errorf("record of the mode pages: %w", err)
	}
	if s.Version != savedModesVersion {
		return nil, fmt.Errorf("record of the mode pages: version %d, not %d; use a version of odx that reads it", s.Version, savedModesVersion)
	}
	return slices.Concat(s.Pages...), nil
}

// pageSavable is the PS bit of a page that MODE SENSE returns.
const pageSavable = 0x80 // byte 0

// modeParameters are the mode parameters of a logical unit, shared by all its
// nexuses (MLUS).
type modeParameters struct {
	// pages has the code, the subpage, the defaults and what can be changed of
	// each page; it is set up once.
	pages []modePage
	// records is where they are saved; nil: nowhere.
	records Records
	// selecting holds a value while a MODE SELECT is carried out: one at a time,
	// since saving takes long.
	selecting chan struct{}

	// What commands look at while they run; it mirrors current.
	wce, dSense, swp, tas, lbpere atomic.Bool

	mu      sync.Mutex // guards what follows
	current [][]byte
	saved   [][]byte
}

// init sets the pages and gives them their saved values.
func (m *modeParameters) init(pages []modePage, records Records) error {
	m.pages, m.records, m.selecting = pages, records, make(chan struct{}, 1)
	m.saved = make([][]byte, len(m.pages))
	for i, p := range m.pages {
		m.saved[i] = bytes.Clone(p.defaults)
	}
	if records != nil {
		record, err := records.Load(modeRecord)
		if err != nil {
			return err
		}
		saved, err := decodeModes(record)
		if err != nil {
			return err
		}
		m.take(saved)
	}
	m.reset()
	return nil
}

// take takes saved values over as far as they still can be changed: another
// version, or another configuration, may have other pages.
func (m *modeParameters) take(record []byte) {
	for len(record) >= 4 {
		code, subpage, length := record[0]&0x3F, byte(0), 2+int(record[1])
		if record[0]&0x40 != 0 {
			subpage, length = record[1], 4+int(binary.BigEndian.Uint16(record[2:]))
		}
		if length > len(record) {
			return
		}
		if i := m.find(code, subpage); i >= 0 && len(m.saved[i]) == length {
			at := 2
			if subpage != 0 {
				at = 4
			}
			for ; at < length; at++ {
				can := m.pages[i].changeable[at]
				m.saved[i][at] = m.pages[i].defaults[at]&^can | record[at]&can
			}
		}
		record = record[length:]
	}
}

// reset gives every page its saved values (SAM-5 6.3.2).
func (m *modeParameters) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = slices.Clone(m.saved)
	m.mirror()
}

// mirror takes over the bits that commands look at; m.mu is held.
func (m *modeParameters) mirror() {
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
func (m *modeParameters) find(code, subpage byte) int {
	return slices.IndexFunc(m.pages, func(p modePage) bool { return p.code == code && p.subpage == subpage })
}
