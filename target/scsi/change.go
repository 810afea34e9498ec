package scsi

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"odx/target/qos"
	"odx/target/scsi/sense"
)

// changeable is what of LUConfig can change while the logical unit is in use.
type changeable struct {
	readOnly atomic.Bool
	// unmapGranularity and softThreshold are in bytes.
	unmapGranularity, softThreshold atomic.Int64
}

func (c *changeable) init(from *LUConfig) {
	c.readOnly.Store(from.ReadOnly)
	c.unmapGranularity.Store(from.UnmapGranularity)
	c.softThreshold.Store(from.Space.SoftThreshold)
}

// SetReadOnly changes LUConfig.ReadOnly. Commands that write and have not begun end with
// DATA PROTECT from then on. Every nexus gets MODE PARAMETERS CHANGED, for the WP bit of
// the mode parameter header (SBC-3 6.5.1).
func (lu *LogicalUnit) SetReadOnly(to bool) {
	if lu.changeable.readOnly.Swap(to) != to {
		lu.establish(sense.ASCModeParametersChanged, nil)
	}
}

// SetUnmapGranularity changes LUConfig.UnmapGranularity, in bytes. Every nexus gets INQUIRY
// DATA HAS CHANGED, for the Block Limits VPD page (SPC-4 r37 7.8.1).
func (lu *LogicalUnit) SetUnmapGranularity(to int64) error {
	if to < 0 || to%int64(lu.LogicalBlockLength()) != 0 {
		return fmt.Errorf("UNMAP granularity of %d bytes: must be a multiple of %d", to, lu.LogicalBlockLength())
	}
	if lu.changeable.unmapGranularity.Swap(to) != to && lu.config.Thin {
		lu.establish(sense.ASCInquiryDataChanged, nil)
	}
	return nil
}

// SetSoftThreshold changes Space.SoftThreshold, in bytes. Every nexus gets MODE PARAMETERS
// CHANGED, for the Logical Block Provisioning mode page (SBC-3 6.5.9). A logical unit that
// was created without Space has no such page.
func (lu *LogicalUnit) SetSoftThreshold(to int64) {
	if lu.changeable.softThreshold.Swap(to) != to && lu.config.reportsSpace() {
		lu.modes.SetThreshold(softThreshold(to))
		lu.establish(sense.ASCModeParametersChanged, nil)
	}
}

// Renewed notifies every nexus that the volume has other data than before, which the nexus
// did not write: NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED, and CAPACITY DATA HAS
// CHANGED if its size is another one. It waits for the volume. No command may run while
// the data changes.
func (lu *LogicalUnit) Renewed() {
	lu.establish(sense.ASCMediumMayHaveChanged, nil)
	lu.Resized()
}

// Drain returns when no command of the logical unit runs or waits, or with the error of
// ctx if that ends first. New commands end with LOGICAL UNIT NOT SUPPORTED, until a target
// gets the logical unit again. Its own limits no longer hold commands back. It is for a
// logical unit that no target has.
func (lu *LogicalUnit) Drain(ctx context.Context) error {
	drained := lu.tasks.close()
	lu.SetLimits(qos.Limits{}, nil)
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-drained: // both
		return nil
	default:
		return fmt.Errorf("commands of logical unit %s: %w", lu.SerialNumber(), ctx.Err())
	}
}

// PowerOff drops what outlives the process but no loss of power: current mode parameters,
// persistent reservations without APTPL, states of ports. Initiators that find the logical
// unit again later find it as after power on (SAM-5 6.3.1). It follows Close, and the
// logical unit must not be used again.
func (lu *LogicalUnit) PowerOff(ctx context.Context) error {
	return errors.Join(lu.modes.PowerOff(ctx), lu.reservations.PowerOff(ctx), lu.config.Era.Save(ctx, portsRecord, nil))
}
