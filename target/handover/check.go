package handover

import (
	"errors"
	"fmt"
)

// totals are what the sessions of a State have together.
type totals struct {
	connections, unread, copies, running int
	sockets                              map[int]bool
	tsihs                                map[uint16]bool
}

// check returns an error for a State that is beyond the bounds or contradicts itself.
func (s *State) check() error {
	if s.Version != Version {
		return fmt.Errorf("state of a handover: version %d, not %d: %w", s.Version, Version, errors.ErrUnsupported)
	}
	if len(s.Sessions) > MaxSessions {
		return fmt.Errorf("state of a handover: %d sessions, maximum is %d", len(s.Sessions), MaxSessions)
	}
	all := totals{sockets: map[int]bool{}, tsihs: map[uint16]bool{}}
	for i := range s.Sessions {
		if err := s.Sessions[i].check(&all); err != nil {
			return fmt.Errorf("state of a handover: session %d: %w", i, err)
		}
	}
	switch {
	case all.connections > MaxConnections:
		return fmt.Errorf("state of a handover: %d connections, maximum is %d", all.connections, MaxConnections)
	case all.unread > MaxUnread:
		return fmt.Errorf("state of a handover: %d unread bytes, maximum is %d", all.unread, MaxUnread)
	case all.copies > MaxCopies:
		return fmt.Errorf("state of a handover: %d copy operations, maximum is %d", all.copies, MaxCopies)
	case all.running > MaxRunning:
		return fmt.Errorf("state of a handover: %d running copy operations, maximum is %d", all.running, MaxRunning)
	}
	return nil
}

func (s *Session) check(all *totals) error {
	switch {
	case s.Initiator == "" || len(s.Initiator) > MaxName || len(s.Alias) > MaxName || s.Target == "" || len(s.Target) > MaxName || len(s.User) > MaxName:
		return errors.New("missing or too long name")
	case len(s.ISID) != 6:
		return fmt.Errorf("ISID of %d bytes", len(s.ISID))
	case s.TSIH == 0 || all.tsihs[s.TSIH]:
		return fmt.Errorf("TSIH %d is invalid or taken", s.TSIH)
	case s.MaxCmdSN-s.ExpCmdSN+1 > MaxWindow:
		return fmt.Errorf("ExpCmdSN %d with MaxCmdSN %d", s.ExpCmdSN, s.MaxCmdSN)
	case len(s.Connections) == 0 || len(s.Connections) > int(s.Keys.MaxConnections):
		return fmt.Errorf("%d connections, maximum is %d", len(s.Connections), s.Keys.MaxConnections)
	case len(s.Nexus.Units) > MaxUnits:
		return fmt.Errorf("%d logical units, maximum is %d", len(s.Nexus.Units), MaxUnits)
	}
	all.tsihs[s.TSIH] = true
	for _, sn := range s.Aborted {
		if sn-s.ExpCmdSN > s.MaxCmdSN-s.ExpCmdSN {
			return fmt.Errorf("aborted CmdSN %d is outside the window", sn)
		}
	}
	if err := s.Keys.check(); err != nil {
		return err
	}
	for i := range s.Connections {
		if err := s.Connections[i].check(all); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return s.Nexus.check(all)
}

// minSegment and maxSegment bound the lengths that are negotiated (RFC 7143 13.12 to
// 13.14).
const minSegment, maxSegment = 512, 1<<24 - 1

func (k *Keys) check() error {
	for _, n := range []uint32{k.MaxBurstLength, k.FirstBurstLength} {
		if n < minSegment || n > maxSegment {
			return fmt.Errorf("burst of %d bytes", n)
		}
	}
	if k.MaxConnections > 1<<16-1 || k.MaxOutstandingR2T == 0 || k.MaxOutstandingR2T > 1<<16-1 {
		return errors.New("MaxConnections or MaxOutstandingR2T out of range")
	}
	return nil
}

func (c *Connection) check(all *totals) error {
	for _, n := range []uint32{c.InitiatorSegment, c.TargetSegment} {
		if n < minSegment || n > maxSegment {
			return fmt.Errorf("data segments of %d bytes", n)
		}
	}
	if c.Socket < 0 || c.Socket >= MaxConnections || all.sockets[c.Socket] {
		return fmt.Errorf("socket %d is invalid or taken", c.Socket)
	}
	all.sockets[c.Socket] = true
	all.connections++
	all.unread += len(c.Unread)
	return nil
}

func (n *Nexus) check(all *totals) error {
	seen := map[uint16]bool{}
	for i := range n.Units {
		u := &n.Units[i]
		switch {
		case seen[u.LUN] || u.LUN >= MaxUnits:
			return fmt.Errorf("LUN %d is invalid or taken", u.LUN)
		case len(u.ID) != 16:
			return fmt.Errorf("LUN %d: identity of %d bytes", u.LUN, len(u.ID))
		case len(u.Attentions) > MaxAttentions:
			return fmt.Errorf("LUN %d: %d unit attentions, maximum is %d", u.LUN, len(u.Attentions), MaxAttentions)
		}
		seen[u.LUN] = true
		all.copies += len(u.Copies)
		all.running += len(u.Running)
		if err := u.Deferred.check(0); err != nil {
			return fmt.Errorf("LUN %d: %w", u.LUN, err)
		}
		for k := range u.Copies {
			if err := u.Copies[k].check(); err != nil {
				return fmt.Errorf("LUN %d: copy operation %d: %w", u.LUN, u.Copies[k].ListID, err)
			}
		}
		if err := checkRunning(u.Running); err != nil {
			return fmt.Errorf("LUN %d: %w", u.LUN, err)
		}
	}
	return nil
}

// tokenLength is the length of a ROD token in bytes (SPC-4 r37 5.17.6).
const tokenLength = 512

func (c *Copy) check() error {
	if len(c.Token) != 0 && len(c.Token) != tokenLength {
		return fmt.Errorf("token of %d bytes", len(c.Token))
	}
	return c.Sense.check(0)
}

// checkRunning checks the running operations of a nexus at a logical unit.
func checkRunning(list []RunningCopy) error {
	seen := map[uint32]bool{}
	for i := range list {
		c := &list[i]
		err := c.check()
		if seen[c.ListID] {
			err = errors.New("list identifier is taken")
		}
		if err != nil {
			return fmt.Errorf("running copy operation %d: %w", c.ListID, err)
		}
		seen[c.ListID] = true
	}
	return nil
}

// cdbLength is the length of the CDBs of third-party copies in bytes (SPC-4 r37 6.3 to 6.5).
const cdbLength = 16

func (c *RunningCopy) check() error {
	switch {
	case len(c.CDB) != cdbLength:
		return fmt.Errorf("CDB of %d bytes", len(c.CDB))
	case len(c.Parameters) > MaxParameters:
		return fmt.Errorf("parameter list of %d bytes, maximum is %d", len(c.Parameters), MaxParameters)
	case c.SegmentBytes > c.TransferCount:
		return fmt.Errorf("%d bytes of a segment, and %d of all", c.SegmentBytes, c.TransferCount)
	case len(c.Residual) > MaxResidual || int64(c.ResidualSource) > int64(len(c.Residual)):
		return fmt.Errorf("residual data of %d bytes, %d of them of the source", len(c.Residual), c.ResidualSource)
	case len(c.Held) > MaxHeld:
		return fmt.Errorf("held data of %d bytes, maximum is %d", len(c.Held), MaxHeld)
	}
	return nil
}

func (s *Sense) check(depth int) error {
	switch {
	case s == nil:
		return nil
	case depth >= maxSenseDepth:
		return fmt.Errorf("sense data forwarded more than %d times", maxSenseDepth)
	case len(s.SenseKeySpecific) != 0 && len(s.SenseKeySpecific) != 3:
		return fmt.Errorf("sense key specific information of %d bytes", len(s.SenseKeySpecific))
	case s.Key > 0xF:
		return fmt.Errorf("sense key %#x", s.Key)
	case s.Forwarded == nil:
		return nil
	}
	return s.Forwarded.Sense.check(depth + 1)
}
