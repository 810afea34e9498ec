package mode

import (
	"encoding/binary"
	"slices"
)

// page describes a mode page (SPC-4 r37 7.5): its default values, and a mask of the
// bits that MODE SELECT can change. Both are whole pages with header.
type page struct {
	code, subpage        byte
	defaults, changeable []byte
}

// Mode pages and the bits in them that the device server evaluates.
const (
	pageRecovery = 0x01
	pageCaching  = 0x08
	pageControl  = 0x0A
	pageAll      = 0x3F
	subpageAll   = 0xFF

	pageProvisioning, subpageProvisioning = 0x1C, 0x02

	recoveryLBPERE = 0x80 // byte 7
	cachingWCE     = 0x04 // byte 2
	controlDSense  = 0x04 // byte 2
	controlSWP     = 0x08 // byte 4
	controlTAS     = 0x40 // byte 5
)

// modePages lists the pages that every logical unit has, in the order in which
// MODE SENSE returns them.
var modePages = [...]page{
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

// pageSavable is the PS bit of a page that MODE SENSE returns.
const pageSavable = 0x80 // byte 0

// pagesOf returns the mode pages of a logical unit in ascending order.
func pagesOf(c *Config) []page {
	pages := slices.Clone(modePages[:])
	for i := range pages {
		p := &pages[i]
		p.defaults, p.changeable = slices.Clone(p.defaults), slices.Clone(p.changeable)
		switch {
		case p.code == pageCaching && c.WriteThrough:
			p.defaults[2] &^= cachingWCE
			p.changeable[2] &^= cachingWCE
		case p.code == pageRecovery && c.ReportsSpace:
			p.defaults[7] |= recoveryLBPERE
			p.changeable[7] |= recoveryLBPERE
		}
	}
	if !c.ReportsSpace {
		return pages
	}
	// Logical Block Provisioning (SBC-3 6.5.9): one threshold, for all nexuses. It
	// belongs to the store, so no initiator can change it.
	fixed := []byte{0x40 | pageProvisioning, subpageProvisioning, 0, 0x14, 23: 0}
	return append(pages, page{
		code: pageProvisioning, subpage: subpageProvisioning,
		defaults:   putThreshold(slices.Clone(fixed), c.ThresholdDescriptor),
		changeable: fixed,
	})
}

// putThreshold sets the threshold descriptor of the Logical Block Provisioning page.
func putThreshold(page []byte, descriptor uint64) []byte {
	binary.BigEndian.PutUint64(page[16:], descriptor)
	return page
}
