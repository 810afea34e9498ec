package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// Log pages (SPC-4 r37 7.3, SBC-3 6.4).
const (
	logSupportedPages   = 0x00
	logProvisioning     = 0x0C
	logSubpageSupported = 0xFF

	logDS  = 0x80 // byte 0: the page is not saved
	logSPF = 0x40 // byte 0
)

// executeLogSense is LOG SENSE (SPC-4 r37 6.8). No parameter has a threshold or a
// default value, so PAGE CONTROL has no effect (SPC-4 r37 7.3.2.2).
func executeLogSense(_ context.Context, t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x01 != 0 { // SP: saving is not supported
		return sense.InvalidFieldInCDB(1, 0)
	}
	pointer := binary.BigEndian.Uint16(cdb[5:])
	page, last := []byte(nil), uint16(0)
	switch code, subpage := cdb[2]&0x3F, cdb[3]; {
	case code == logSupportedPages && subpage == 0:
		page = logPage(logSupportedPages, 0, []byte{logSupportedPages, logProvisioning})
	case code == logSupportedPages && subpage == logSubpageSupported:
		page = logPage(logSPF|logSupportedPages, logSubpageSupported,
			[]byte{logSupportedPages, 0, logSupportedPages, logSubpageSupported, logProvisioning, 0})
	case code == logProvisioning && subpage == 0:
		page, last = logPage(logDS|logProvisioning, 0, t.LU.logSpace(pointer)), resourceUsed
	case code == logSupportedPages || code == logProvisioning:
		return sense.InvalidFieldInCDB(3, 7)
	default:
		return sense.InvalidFieldInCDB(2, 5)
	}
	if pointer > last {
		return sense.InvalidFieldInCDB(5, 7)
	}
	t.SetDataIn(page, uint32(binary.BigEndian.Uint16(cdb[7:])))
	return nil
}

// logPage prepends the page header to the body of a page.
func logPage(first, subpage byte, body []byte) []byte {
	p := []byte{first, subpage, 0, 0}
	binary.BigEndian.PutUint16(p[2:], uint16(len(body)))
	return append(p, body...)
}

// logSpace returns the parameters of the Logical Block Provisioning page (SBC-3 6.4.4),
// beginning with parameter code from, in threshold sets.
func (lu *LogicalUnit) logSpace(from uint16) []byte {
	const (
		binaryList = 0x03
		shared     = 0x02 // SCOPE: other logical units use the same resource
	)
	used, left := lu.config.Space.Usage()
	var p []byte
	for _, r := range []struct {
		code  uint16
		count uint32
	}{
		{resourceAvailable, thresholdSets(left)},
		{resourceUsed, thresholdSets(used + thresholdSet - 1)},
	} {
		if r.code < from {
			continue
		}
		p = binary.BigEndian.AppendUint16(p, r.code)
		p = append(p, binaryList, 8)
		p = binary.BigEndian.AppendUint32(p, r.count)
		p = append(p, shared, 0, 0, 0)
	}
	return p
}
