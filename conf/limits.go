package conf

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Limits bound what initiators may hold and ask for. Zero means the default of
// the transport.
type Limits struct {
	// Sessions, of all initiators, and of each.
	Sessions, SessionsPerInitiator int
	// ConnectionsPerSession is what is agreed on at most (MaxConnections).
	ConnectionsPerSession int
	// Connections that are logged in.
	Connections int
	// Logins are connections that have not logged in yet, in total and from one
	// address; LoginTimeout is how long they may take.
	Logins, LoginsPerAddress int
	LoginTimeout             time.Duration
	// Commands that a session may have outstanding (the CmdSN window).
	Commands int
	// MaxRecvDataSegmentLength, MaxBurstLength and FirstBurstLength, in bytes
	// (RFC 7143 13.12 to 13.14).
	DataSegment, MaxBurst, FirstBurst int
	// Buffers bounds the memory for the data of all commands, in bytes.
	Buffers int64
	// PingAfter is after how much silence an initiator is asked for a sign of
	// life, NoPings: never; PingTimeout how long it may take for that.
	PingAfter, PingTimeout time.Duration
}

// NoPings is a PingAfter that switches pings off.
const NoPings time.Duration = -1

// limits reads the limits.
func (c *checker) limits(raw *fileLimits) Limits {
	const least, most = 512, 1<<24 - 1 // of the lengths, in RFC 7143 13
	l := Limits{
		Sessions:              c.count("limits.sessions", raw.Sessions, 1<<16-2, "sessions"),
		SessionsPerInitiator:  c.count("limits.sessions_per_initiator", raw.SessionsPerInitiator, 1<<16-2, "sessions"),
		ConnectionsPerSession: c.count("limits.connections_per_session", raw.ConnectionsPerSession, 1<<16-1, "connections"),
		Connections:           c.count("limits.connections", raw.Connections, 1<<20, "connections"),
		Logins:                c.count("limits.logins", raw.Logins, 1<<20, "connections"),
		LoginsPerAddress:      c.count("limits.logins_per_address", raw.LoginsPerAddress, 1<<20, "connections"),
		LoginTimeout:          c.duration("limits.login_timeout", raw.LoginTimeout),
		Commands:              c.count("limits.commands", raw.Commands, 1<<16, "commands"),
		DataSegment:           c.length("limits.data_segment", raw.DataSegment, least, most),
		MaxBurst:              c.length("limits.max_burst", raw.MaxBurst, least, most),
		FirstBurst:            c.length("limits.first_burst", raw.FirstBurst, least, most),
		Buffers:               c.size("limits.buffers", raw.Buffers, leastBuffers),
		PingAfter:             c.pingAfter(raw.PingAfter),
		PingTimeout:           c.duration("limits.ping_timeout", raw.PingTimeout),
	}
	if l.MaxBurst != 0 && l.FirstBurst > l.MaxBurst {
		c.add("limits.first_burst", "%s is longer than max_burst, %s, which it is a part of; make it smaller", FormatSize(int64(l.FirstBurst)), FormatSize(int64(l.MaxBurst)))
	}
	return l
}

// count reads an optional positive number; 0 when absent.
func (c *checker) count(key string, value *string, most int64, what string) int {
	return int(c.number(key, value, 0, 1, most, what))
}

// length reads an optional length in bytes; 0 when absent.
func (c *checker) length(key string, value *string, least, most int64) int {
	n := c.size(key, value, least)
	if n > most {
		c.add(key, "%s is too much; %d bytes is the most", FormatSize(n), most)
		return 0
	}
	return int(n)
}

// maxDuration bounds the times of a configuration.
const maxDuration = time.Hour

// duration reads an optional time; 0 when absent.
func (c *checker) duration(key string, value *string) time.Duration {
	if value == nil {
		return 0
	}
	d, err := time.ParseDuration(*value)
	if err != nil || d < time.Second || d > maxDuration {
		c.add(key, "%q is not possible; write a time from 1s to 1h, for example 15s", *value)
		return 0
	}
	return d
}

// pingAfter reads after how much silence an initiator is pinged: as duration, and
// 0 for never.
func (c *checker) pingAfter(value *string) time.Duration {
	if value == nil {
		return 0
	}
	if d, err := time.ParseDuration(*value); err == nil && d == 0 {
		return NoPings
	}
	return c.duration("limits.ping_after", value)
}

// portalGroups reads the portal groups of a target, which have to have portals.
func (c *checker) portalGroups(key string, raw []*string, portals []Portal) []uint16 {
	var groups []uint16
	for i, value := range raw {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		text, ok := c.required(itemKey, value, "the number of a portal group, as it stands after the comma of a portal")
		if !ok {
			continue
		}
		tag, err := strconv.ParseUint(text, 10, 16)
		used := slices.ContainsFunc(portals, func(p Portal) bool { return p.Group == uint16(tag) })
		switch {
		case err != nil || tag == 0:
			c.add(itemKey, "%q is no portal group; write a number from 1 to 65535", text)
		case !used:
			c.add(itemKey, "no portal is in group %d; write \"address:port,%d\" for one of them, or another number here", tag, tag)
		case slices.Contains(groups, uint16(tag)):
			c.add(itemKey, "group %d is given twice; keep one", tag)
		default:
			groups = append(groups, uint16(tag))
		}
	}
	return groups
}

// redirect reads where a target's initiators are sent.
func (c *checker) redirect(key string, raw *fileRedirect) *Redirect {
	if raw == nil {
		return nil
	}
	r := &Redirect{Permanent: c.oneOf(key+".permanent", raw.Permanent, "false", "true") == "true"}
	text, ok := c.required(key+".to", raw.To, "the address where the target is, for example \"192.0.2.7:3260\"")
	if !ok {
		return r
	}
	var err error
	if r.To, err = parseAddress(text); err != nil {
		c.add(key+".to", "%v", err)
	}
	return r
}
