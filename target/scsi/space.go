package scsi

import (
	"encoding/binary"

	"odx/target/scsi/mode"
	"odx/target/scsi/sense"
)

// Space describes the LBA mapping resources of a thin provisioned logical unit (SBC-3
// 4.7.3), which it shares with other logical units of the store.
type Space struct {
	// SoftThreshold is the number of used bytes at which initiators are notified
	// (SoftThresholdReached). 0: they are not.
	SoftThreshold int64
	// Usage returns the used and the available bytes. It must not take longer than a
	// query of the host's file system. nil: not reported.
	Usage func() (used, left int64)
}

// thresholdSet is the unit of reported resources in bytes (2 to the power of THRESHOLD
// EXPONENT logical blocks). With it 32 bits suffice for 4 PiB.
const thresholdSet = 1 << 20

// Threshold descriptor of the Logical Block Provisioning mode page (SBC-3
// 6.5.9.2), and the log parameters that it refers to (SBC-3 6.4.4).
const (
	thresholdEnabled          = 0x80 // byte 0
	thresholdArmingIncreasing = 0x01 // byte 0, type 000b: a soft threshold

	resourceAvailable = 0x0001
	resourceUsed      = 0x0002
)

// reportsSpace reports whether initiators get the resource usage of a thin unit.
func (c *LUConfig) reportsSpace() bool {
	return c.Thin && (c.Space.SoftThreshold > 0 || c.Space.Usage != nil)
}

// softThreshold returns the threshold descriptor, 8 bytes, of a soft threshold in bytes; 0
// for none. It is armed while the used resources increase.
func softThreshold(threshold int64) uint64 {
	var d [8]byte
	d[0], d[1] = thresholdArmingIncreasing, resourceUsed
	if threshold > 0 {
		d[0] |= thresholdEnabled
		binary.BigEndian.PutUint32(d[4:], thresholdSets(threshold+thresholdSet-1))
	}
	return binary.BigEndian.Uint64(d[:])
}

// thresholdSets returns the whole threshold sets in a number of bytes, limited to the
// maximum of a field.
func thresholdSets(bytes int64) uint32 {
	return uint32(min(max(bytes, 0)/thresholdSet, 0xFFFFFFFF))
}

// SoftThresholdReached notifies every nexus by unit attention that the used bytes have
// reached the soft threshold, if there is one and initiators have not disabled it
// (LBPERE). The caller monitors the usage, and calls it each time the usage rises above
// the threshold.
func (lu *LogicalUnit) SoftThresholdReached() {
	if lu.config.Thin && lu.changeable.softThreshold.Load() > 0 && lu.modes.ReportsThreshold() {
		lu.establish(sense.ASCSoftThresholdReached, nil)
	}
}

// modeConfig returns the configuration of the mode parameters of a logical unit.
func modeConfig(c *LUConfig) mode.Config {
	m := mode.Config{Records: c.Records, Era: c.Era, WriteThrough: c.WriteThrough, ReportsSpace: c.reportsSpace()}
	if m.ReportsSpace {
		m.ThresholdDescriptor = softThreshold(c.Space.SoftThreshold)
	}
	return m
}

// vpdLogicalBlockProvisioning is page B2h (SBC-3 6.6.5).
func (lu *LogicalUnit) vpdLogicalBlockProvisioning(*Nexus) []byte {
	b := make([]byte, 4)
	if lu.config.Thin {
		b[1] = 0x80 | 0x40 | 0x20 | 0x04 // LBPU, LBPWS, LBPWS10, LBPRZ
		b[2] = 0x02                      // thin provisioned
	}
	if lu.config.reportsSpace() {
		for blocks := thresholdSet >> lu.blockShift; blocks > 1; blocks >>= 1 {
			b[0]++ // THRESHOLD EXPONENT
		}
	}
	return b
}
