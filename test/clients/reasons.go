package clients

import (
	"path"
	"strings"
)

// reason is why a test need not do its work on a disk.
type reason struct {
	test    string // SUITE.TEST, as a pattern of path.Match
	says    string // part of what it prints
	because string // what the standard says
}

const (
	notRemovable = "the medium of a disk cannot be taken out: RMB is 0 (SPC-4 6.6.2), which leaves nothing to eject and nothing to prevent"
	wsnz         = "a WRITE SAME of no blocks would mean the rest of the disk; WSNZ in page B0h says that it is refused (SBC-3 6.6.4), and the test saw that it is"
	noOverwrite  = "a SANITIZE need not know each way (SBC-3 5.24), and no physical block of the store is written twice; BLOCK ERASE is offered, and tested"
	noKeys       = "a SANITIZE need not know each way (SBC-3 5.24), and no volume is encrypted; BLOCK ERASE is offered, and tested"
	anyBlocks    = "ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY are 0 in page B0h (SBC-4 6.6.4), so there is nothing to go against"
	oneToOne     = "a physical block is one logical block (READ CAPACITY(16)), so there is no part of one to be aligned or not"
)

// maySkip are the reasons for which a test may be skipped. Any other skip is a
// failure.
var maySkip = []reason{
	{"NoMedia.*", "not removable", notRemovable},
	{"PreventAllow.*", "not removable", notRemovable},
	{"StartStopUnit.*", "not removable", notRemovable},
	{"WriteSame10.ZeroBlocks", "does not support 0-blocks", wsnz},
	{"WriteSame16.ZeroBlocks", "does not support 0-blocks", wsnz},
	{"WriteSame10.UnmapUnaligned", "LBPPB < 2", oneToOne},
	{"WriteSame16.UnmapUnaligned", "LBPPB < 2", oneToOne},
	{"*.InvalidDataOutSize", "LBPPB < 2", oneToOne},
	{"Sanitize.*", "SANITIZE OVERWRITE is not implemented", noOverwrite},
	{"Sanitize.*", "SANITIZE CRYPTO_ERASE is not implemented", noKeys},
	{"WriteAtomic16.VPD", "No alignment restrictions", anyBlocks},
	{"WriteAtomic16.VPD", "No granularity restrictions", anyBlocks},
}

// because returns why a test of a suite may skip, "" if it may not.
func because(suite string, s Skip) string {
	for _, r := range maySkip {
		if match, _ := path.Match(r.test, suite+"."+s.Test); match && strings.Contains(s.Why, r.says) {
			return r.because
		}
	}
	return ""
}
