package transfer

import (
	"context"
	"fmt"

	"odx/initiator"
)

// lun is a logical unit of an iSCSI session.
type lun struct{ *initiator.Disk }

// OpenLUN logs in to the target of an iSCSI URL.
func OpenLUN(ctx context.Context, u initiator.URL) (Disk, error) {
	d, err := initiator.Open(ctx, initiator.Options{URL: u})
	if err != nil {
		return nil, err
	}
	if _, ok := d.TokenLimits(); !ok {
		return plainLUN{d}, nil
	}
	return lun{d}, nil
}

func (l lun) BlockLength() int { return l.Disk.BlockLength }

// Maps implements Mapper. LUNs in odx's store are thin, others are not. Other vendors'
// targets do not report whether copies move bytes.
func (l lun) Maps() bool { return l.Vendor == "ODX" && l.Thin }

func (l lun) Populate(ctx context.Context, off, length int64) (Token, int64, error) {
	t, n, err := l.PopulateToken(ctx, off, length)
	if err != nil {
		return nil, 0, err
	}
	return t[:], n, nil
}

func (l lun) WriteUsing(ctx context.Context, t Token, offset, off, length int64) (int64, error) {
	if len(t) != initiator.TokenLength {
		return 0, fmt.Errorf("token of %d bytes: the length of a SCSI token is fixed", len(t))
	}
	return l.WriteUsingToken(ctx, (*initiator.Token)(t), offset, off, length)
}

// Forget implements Offloader.
func (l lun) Forget(ctx context.Context, t Token) error {
	if len(t) != initiator.TokenLength {
		return fmt.Errorf("token of %d bytes: the length of a SCSI token is fixed", len(t))
	}
	return l.ForgetToken(ctx, (*initiator.Token)(t))
}

// plainLUN is a logical unit without copies by token.
type plainLUN struct{ *initiator.Disk }

func (l plainLUN) BlockLength() int { return l.Disk.BlockLength }
