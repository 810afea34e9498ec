package copymgr

import (
	"context"
	"fmt"
	"time"

	"odx/blockdev"
	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// executePopulateToken is POPULATE TOKEN (SBC-3 5.7).
func (u *logicalUnit) executePopulateToken(ctx context.Context, t *scsi.Task) error {
	return u.tokenCommand(ctx, t, namePopulateToken, populateSense, u.planPopulate)
}

// planPopulate checks a POPULATE TOKEN.
func (u *logicalUnit) planPopulate(by *scsi.Nexus, parameters []byte) (plan, error) {
	list, err := parsePopulate(parameters, maxRangeDescriptors)
	if err != nil {
		return plan{}, err
	}
	blocks, err := checkRanges(list.ranges, u.rangeLimits())
	if err != nil {
		return plan{}, err
	}
	if !u.manager.rules.Load().allowSource(by.ID.InitiatorName, u.name()) {
		return plan{}, fmt.Errorf("from %s: %w", u.name(), errRule)
	}
	o := tokens.ReadOptions{
		InactivityTimeout: time.Duration(list.inactivityTimeout) * time.Second,
		Creator:           tokens.Creator{Initiator: by.ID.InitiatorName, Target: by.ID.TargetName, Volume: u.name()},
		Use:               "scsi",
	}
	if list.rtv {
		if o.Type = list.rodType; !o.Type.PointInTime() && !o.Type.VendorSpecific() {
			return plan{}, fmt.Errorf("%w: %v", tokens.ErrUnsupportedType, o.Type)
		}
	}
	ranges := byteRanges(list.ranges, u.lu.LogicalBlockLength())
	source := u.source(by)
	return plan{background: list.immediate, work: func(ctx context.Context, op *operation) (report, error) {
		op.progress.expected.Store(blocks)
		return u.populate(ctx, op, source, ranges, o)
	}}, nil
}

// populate creates the token.
func (u *logicalUnit) populate(ctx context.Context, op *operation, source tokens.Source, ranges []blockdev.Range, o tokens.ReadOptions) (report, error) {
	if len(ranges) == 0 {
		// Nothing to represent: GOOD without a token.
		return report{}, nil
	}
	res, err := u.manager.tokens.OffloadRead(ctx, source, ranges, o)
	if err != nil {
		if op.handedOver() {
			op.position = new(handover.RunningCopy) // begins again: a token has one point in time
		}
		return report{sense: senseOf(u.lu, populateSense, err)}, err
	}
	r := report{token: res.Token, transferCount: uint64(res.Represented) / uint64(source.LU.BlockLength)}
	op.progress.advance(r.transferCount)
	partial := r.transferCount < op.progress.expected.Load()
	if partial {
		// GOOD status; the count is the part that the token represents.
		r.status = copyDoneWithResidual
	}
	m := u.manager
	op.countCopy(copyCounts{&m.stats.Populated, &m.stats.PopulatedBytes, &m.stats.PopulatedMovedBytes}, uint64(res.Represented), partial)
	return r, nil
}

// source describes the logical unit for its tokens.
func (u *logicalUnit) source(by *scsi.Nexus) tokens.Source {
	naa, capacity := u.lu.NAA(), u.lu.ReadCapacity16()
	return tokens.Source{
		Volume: u.lu.Volume(),
		LU: tokens.LU{
			NAA: naa[:], TargetName: by.ID.TargetName, BlockLength: u.lu.LogicalBlockLength(),
			ReadCapacity: [24]byte(capacity[8:]),
		},
	}
}
