package conf

import "fmt"

// Rate limits the rate of commands and of bytes. A rate of 0 is no limit; a burst of 0 is
// what the rate gives in a tenth of a second, so that it adds 1 % to what passes in 10 s.
type Rate struct {
	// IOPS is in commands per second. IOPSBurst is how many may follow each other
	// without a pause after a time of rest.
	IOPS, IOPSBurst int64
	// BytesPerSecond and BytesBurst limit the bytes that commands transfer.
	BytesPerSecond, BytesBurst int64
}

// Limited reports whether r limits anything.
func (r Rate) Limited() bool { return r.IOPS > 0 || r.BytesPerSecond > 0 }

// WithBursts returns r with bursts in place of those that are 0.
func (r Rate) WithBursts() Rate {
	if r.IOPSBurst == 0 && r.IOPS > 0 {
		r.IOPSBurst = max(r.IOPS/10, 1)
	}
	if r.BytesBurst == 0 {
		r.BytesBurst = r.BytesPerSecond / 10
	}
	return r
}

// QoS limits the rates of initiators and of background work. Those of LUNs, for all
// initiators together, are in LUN. Every limit that applies to a command holds.
type QoS struct {
	// Initiators: the first entry that matches an initiator limits all its sessions
	// together. Each initiator has a limit of its own.
	Initiators []InitiatorRate
	// LUNs: the first entry that matches an initiator and a LUN limits what that initiator
	// does with that LUN.
	LUNs []LUNRate
	// Background limits cleaning, scrubs and replication together.
	Background Rate
}

// InitiatorRate is the limit of each matching initiator.
type InitiatorRate struct {
	Initiators []NamePattern
	Rate       Rate
}

// LUNRate is the limit of each matching initiator for one LUN of a target.
type LUNRate struct {
	// Target is the normal form of the name, LUN the number in the target's list.
	Target     string
	LUN        uint16
	Initiators []NamePattern
	Rate       Rate
}

// OfInitiator returns the limit of an initiator, whose name is in lower case.
func (q *QoS) OfInitiator(initiator string) Rate {
	for i := range q.Initiators {
		if matchesAny(q.Initiators[i].Initiators, initiator) {
			return q.Initiators[i].Rate
		}
	}
	return Rate{}
}

// OfLUN returns the limit of an initiator for a LUN of a target.
func (q *QoS) OfLUN(target string, lun uint16, initiator string) Rate {
	for i := range q.LUNs {
		if l := &q.LUNs[i]; l.Target == target && l.LUN == lun && matchesAny(l.Initiators, initiator) {
			return l.Rate
		}
	}
	return Rate{}
}

// maxIOPS is the maximum of a number of commands.
const maxIOPS = 100_000_000

// minRate is the minimum of a number of bytes: with less, one command would take seconds.
const minRate = 64 << 10

// rate reads the keys of a limit at key.
func (c *checker) rate(key string, raw *fileRate) Rate {
	r := Rate{
		IOPS:           c.number(key+".iops", raw.IOPS, 0, 1, maxIOPS, "commands per second"),
		IOPSBurst:      c.number(key+".iops_burst", raw.IOPSBurst, 0, 1, maxIOPS, "commands"),
		BytesPerSecond: c.size(key+".bytes_per_s", raw.BytesPerS, minRate),
		BytesBurst:     c.size(key+".bytes_burst", raw.BytesBurst, minRate),
	}
	if raw.IOPSBurst != nil && raw.IOPS == nil {
		c.add(key+".iops_burst", "a burst without a rate; give iops, too, or omit it")
	}
	if raw.BytesBurst != nil && raw.BytesPerS == nil {
		c.add(key+".bytes_burst", "a burst without a rate; give bytes_per_s, too, or omit it")
	}
	return r
}

// ratePresent reads a limit that has to limit something.
func (c *checker) ratePresent(key string, raw *fileRate) Rate {
	if raw.IOPS == nil && raw.BytesPerS == nil && !c.mistyped[key+".iops"] && !c.mistyped[key+".bytes_per_s"] {
		c.add(key, "no limit; give iops or bytes_per_s")
	}
	return c.rate(key, raw)
}

func (q *fileInitiatorQoS) rate() *fileRate {
	return &fileRate{q.IOPS, q.IOPSBurst, q.BytesPerS, q.BytesBurst}
}

func (q *fileLUNQoS) rate() *fileRate {
	return &fileRate{q.IOPS, q.IOPSBurst, q.BytesPerS, q.BytesBurst}
}

// qos reads the limits of initiators.
func (c *checker) qos(raw *fileQoS, targets []Target) QoS {
	q := QoS{Background: c.rate("qos.background", &raw.Background)}
	c.notEmpty("qos.initiators", len(raw.Initiators))
	for i := range raw.Initiators {
		key := fmt.Sprintf("qos.initiators[%d]", i)
		if c.mistyped[key] {
			continue
		}
		q.Initiators = append(q.Initiators, InitiatorRate{
			Initiators: c.requiredPatterns(key+".initiators", raw.Initiators[i].Initiators),
			Rate:       c.ratePresent(key, raw.Initiators[i].rate()),
		})
	}
	c.notEmpty("qos.luns", len(raw.LUNs))
	for i := range raw.LUNs {
		if key := fmt.Sprintf("qos.luns[%d]", i); !c.mistyped[key] {
			q.LUNs = append(q.LUNs, c.lunRate(key, &raw.LUNs[i], targets))
		}
	}
	return q
}

// lunRate reads the limit of initiators for a LUN, which must exist.
func (c *checker) lunRate(key string, raw *fileLUNQoS, targets []Target) LUNRate {
	r := LUNRate{
		Target:     c.targetName(key+".target", raw.Target),
		Initiators: c.requiredPatterns(key+".initiators", raw.Initiators),
		Rate:       c.ratePresent(key, raw.rate()),
	}
	text, ok := c.required(key+".lun", raw.LUN, "a LUN of the target")
	if !ok {
		return r
	}
	r.LUN, ok = c.lunNumber(key+".lun", text)
	if !ok || r.Target == "" {
		return r
	}
	t := targetNamed(targets, r.Target)
	switch {
	case t == nil:
		c.add(key+".target", "there is no target %s; define it under targets, or remove the entry", r.Target)
	case t.lun(r.LUN) == nil:
		c.add(key+".lun", "target %s has no LUN %d", r.Target, r.LUN)
	}
	return r
}

// requiredPatterns is patterns for a mandatory key.
func (c *checker) requiredPatterns(key string, raw []*string) []NamePattern {
	if _, given := c.lines[key]; !given {
		c.add(key, "missing; give names of initiators, or [\"*\"] for all")
	}
	return c.patterns(key, raw)
}

// targetNamed returns the target with a name in normal form, or nil.
func targetNamed(targets []Target, name string) *Target {
	for i := range targets {
		if targets[i].Name == name {
			return &targets[i]
		}
	}
	return nil
}

// lun returns the LUN with a number, or nil.
func (t *Target) lun(number uint16) *LUN {
	for i := range t.LUNs {
		if t.LUNs[i].Number == number {
			return &t.LUNs[i]
		}
	}
	return nil
}
