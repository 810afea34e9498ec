package conf

import (
	"fmt"
	"strings"
	"time"
)

// Replica is a volume or a file of this server that is to follow one of a peer, or several of
// them.
type Replica struct {
	Name string
	// Peer is the name of a peer, Source a volume of it, or "file:" and the name of a file. An
	// asterisk at its end selects all whose names begin so.
	Peer, Source string
	// To is the name of the volume or file here; with such a Source, it ends with an asterisk,
	// which stands for what that of Source stands for.
	To       string
	Schedule Schedule
	// BytesPerSecond bounds what is read of the peer; 0: no limit.
	BytesPerSecond int64
	// Hash: data that is here already is found by fingerprints that the peer computes.
	Hash bool
	// Keep is how many snapshots of the replica are kept, one for each state that it had.
	Keep int
	// MaxLag is how old the replica may become before that is reported; 0: it never is.
	MaxLag time.Duration
	// Paused: it is not brought up to date by itself.
	Paused bool
	// Key is the path in the file, for example "replicas[0]".
	Key string
}

const (
	maxReplicas    = 1000
	maxKeptOfThose = 10_000
)

// replicas reads the list of replicas. peers are those of the configuration.
func (c *checker) replicas(raw []fileReplica, peers []Peer) []Replica {
	if len(raw) > maxReplicas {
		c.add("replicas", "%d replicas; at most %d are allowed", len(raw), maxReplicas)
		return nil
	}
	known := map[string]bool{}
	for i := range peers {
		known[peers[i].Name] = true
	}
	var list []Replica
	first := map[string]string{} // name, or object → key
	for i := range raw {
		key := fmt.Sprintf("replicas[%d]", i)
		if c.mistyped[key] {
			continue
		}
		r := c.replica(key, &raw[i])
		c.once(first, "name "+r.Name, key+".name", "name "+r.Name)
		if r.Peer != "" && !known[r.Peer] {
			c.add(key+".peer", "unknown peer %.70q; use the name of an entry of peers", r.Peer)
		}
		to := r.To
		if strings.HasPrefix(r.Source, "file:") {
			to = "file:" + to
		}
		c.once(first, "object "+to, key, "replica "+to)
		list = append(list, r)
	}
	return list
}

func (c *checker) replica(key string, raw *fileReplica) Replica {
	r := Replica{
		Key: key, Schedule: c.schedule(key, raw.Every, raw.At, raw.TimeZone),
		BytesPerSecond: c.size(key+".bytes_per_s", raw.BytesPerS, 64<<10),
		Keep:           int(c.number(key+".keep", raw.Keep, 0, 0, maxKeptOfThose, "snapshots")),
		Hash:           c.oneOf(key+".hash", raw.Hash, "false", "true") == "true",
		Paused:         c.oneOf(key+".pause", raw.Pause, "false", "true") == "true",
	}
	if raw.MaxLag != nil {
		r.MaxLag = c.every(key+".max_lag", *raw.MaxLag)
	}
	if name, ok := c.required(key+".name", raw.Name, "a name for the replica"); ok {
		if r.Name = name; !label.MatchString(name) {
			c.add(key+".name", "invalid name %.70q; use 1 to 64 letters, digits, dots, dashes and underscores", name)
		}
	}
	r.Peer, _ = c.required(key+".peer", raw.Peer, "the name of an entry of peers")
	if source, ok := c.required(key+".source", raw.Source, "the name of a volume of the peer, or file:NAME"); ok {
		r.Source = source
		if err := checkSnapshotted(source); err != nil {
			c.add(key+".source", "%v", err)
		}
	}
	r.To = r.Name
	if r.Selects() {
		r.To = strings.TrimPrefix(r.Source, "file:")
	}
	if raw.To != nil {
		r.To = *raw.To
	}
	c.checkTo(key+".to", r)
	return r
}

// checkTo checks the name of the volume or file here.
func (c *checker) checkTo(key string, r Replica) {
	if r.To == "" || !label.MatchString(r.Name) && r.To == r.Name {
		return // reported
	}
	if r.Selects() {
		c.checkToPrefix(key, r)
		return
	}
	if strings.HasPrefix(r.Source, "file:") {
		if !isFileName(r.To) {
			c.add(key, "invalid file name %.70q; use a path like images/base.img", r.To)
		}
	} else if err := CheckVolumeName(r.To); err != nil {
		c.add(key, "%v", err)
	}
}

// Selects reports whether the entry is for all volumes, or files, whose names begin in some way.
func (r *Replica) Selects() bool { return strings.HasSuffix(r.Source, "*") }

// checkToPrefix is checkTo for an entry that selects.
func (c *checker) checkToPrefix(key string, r Replica) {
	to := r.To
	if strings.HasPrefix(r.Source, "file:") {
		to = "file:" + to
	}
	if err := checkSnapshotted(to); err != nil {
		c.add(key, "%v", err)
	} else if !strings.HasSuffix(to, "*") {
		c.add(key, "%.70q has no asterisk at its end, as source has; the names of %s are to differ", r.To, r.Source)
	}
}

// file returns what the file says.
func (r *Replica) file() fileReplica {
	f := fileReplica{
		Name: textOf(r.Name), Peer: textOf(r.Peer), Source: textOf(r.Source), To: textOf(r.To), Hash: boolOf(r.Hash), Pause: boolOf(r.Paused),
		BytesPerS: sizeOf(r.BytesPerSecond), Keep: numberOf(int64(r.Keep)), MaxLag: durationOf(r.MaxLag),
	}
	f.Every, f.At, f.TimeZone = durationOf(r.Schedule.Every), textsOf(r.Schedule.At), textOf(r.Schedule.Zone)
	return f
}
