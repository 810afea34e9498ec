package conf

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Limits bounds the resources of initiators. Zero selects the default of the
// transport.
type Limits struct {
	// Sessions bounds the sessions of all initiators, SessionsPerInitiator those of each.
	Sessions, SessionsPerInitiator int
	// ConnectionsPerSession is the maximum of MaxConnections.
	ConnectionsPerSession int
	// Connections bounds the logged-in connections.
	Connections int
	// Logins and LoginsPerAddress bound the connections that have not logged in, in
	// total and per address. LoginTimeout bounds the duration of a login.
	Logins, LoginsPerAddress int
	LoginTimeout             time.Duration
	// Commands bounds the outstanding commands of a session (the CmdSN window).
	Commands int
	// MaxRecvDataSegmentLength, MaxBurstLength and FirstBurstLength, in bytes
	// (RFC 7143 13.12 to 13.14).
	DataSegment, MaxBurst, FirstBurst int
	// Buffers bounds the memory for the data of all commands in bytes.
	Buffers int64
	// PingAfter is the idle time after which an initiator is pinged (NOP-In), or
	// NoPings. PingTimeout bounds the response time.
	PingAfter, PingTimeout time.Duration
	// Snapshots bounds the snapshots of all policies.
	Snapshots int
}

// DefaultSnapshots is the default of Limits.Snapshots.
const DefaultSnapshots = 10_000

// NoPings is a PingAfter that disables pings.
const NoPings time.Duration = -1

// limits reads the limits.
func (c *checker) limits(raw *fileLimits) Limits {
	const least, most = 512, 1<<24 - 1 // range of the lengths, RFC 7143 13
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
		Buffers:               c.size("limits.buffers", raw.Buffers, minBuffers),
		PingAfter:             c.pingAfter(raw.PingAfter),
		PingTimeout:           c.duration("limits.ping_timeout", raw.PingTimeout),
		Snapshots:             int(c.number("limits.snapshots", raw.Snapshots, DefaultSnapshots, 1, 1_000_000, "snapshots")),
	}
	if l.MaxBurst != 0 && l.FirstBurst > l.MaxBurst {
		c.add("limits.first_burst", "%s exceeds max_burst (%s); reduce it", FormatSize(int64(l.FirstBurst)), FormatSize(int64(l.MaxBurst)))
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
		c.add(key, "%s exceeds the maximum of %d bytes", FormatSize(n), most)
		return 0
	}
	return int(n)
}

// maxDuration is the maximum of a duration.
const maxDuration = time.Hour

// duration reads an optional duration; 0 when absent.
func (c *checker) duration(key string, value *string) time.Duration {
	if value == nil {
		return 0
	}
	d, err := time.ParseDuration(*value)
	if err != nil || d < time.Second || d > maxDuration {
		c.add(key, "invalid value %q; use a duration from 1s to 1h, for example 15s", *value)
		return 0
	}
	return d
}

// pingAfter reads ping_after: a duration, or 0 for none.
func (c *checker) pingAfter(value *string) time.Duration {
	if value == nil {
		return 0
	}
	if d, err := time.ParseDuration(*value); err == nil && d == 0 {
		return NoPings
	}
	return c.duration("limits.ping_after", value)
}

// portalGroups reads the portal groups of a target. Each must have a portal.
func (c *checker) portalGroups(key string, raw []*string, portals []Portal) []uint16 {
	var groups []uint16
	for i, value := range raw {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		text, ok := c.required(itemKey, value, "the number of a portal group, which follows the comma of a portal")
		if !ok {
			continue
		}
		tag, err := strconv.ParseUint(text, 10, 16)
		used := slices.ContainsFunc(portals, func(p Portal) bool { return p.Group == uint16(tag) })
		switch {
		case err != nil || tag == 0:
			c.add(itemKey, "invalid portal group %q; use a number from 1 to 65535", text)
		case !used:
			c.add(itemKey, "portal group %d has no portal; add \",%d\" to a portal, or use another number", tag, tag)
		case slices.Contains(groups, uint16(tag)):
			c.add(itemKey, "duplicate group %d; remove one", tag)
		default:
			groups = append(groups, uint16(tag))
		}
	}
	return groups
}

// redirect reads the redirect of a target.
func (c *checker) redirect(key string, raw *fileRedirect) *Redirect {
	if raw == nil {
		return nil
	}
	r := &Redirect{Permanent: c.oneOf(key+".permanent", raw.Permanent, "false", "true") == "true"}
	text, ok := c.required(key+".to", raw.To, "the new address of the target, for example \"192.0.2.7:3260\"")
	if !ok {
		return r
	}
	var err error
	if r.To, err = parseAddress(text); err != nil {
		c.add(key+".to", "%v", err)
	}
	return r
}
