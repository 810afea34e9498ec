package conf

// DefaultMemory is what a server takes for its memory, in bytes, when the file
// says nothing and the machine has enough.
const DefaultMemory = 1 << 30

// Least memory in bytes, in all and of each part.
const (
	leastTotal   = 128 << 20
	leastCache   = 16 << 20
	leastTokens  = 1 << 20
	leastBuffers = 32 << 20
	leastRest    = 32 << 20
)

// Memory is how the memory of a server is divided, in bytes.
type Memory struct {
	// Total is all of it.
	Total int64
	// Cache is for the metadata of the store (store.cache), Tokens for live tokens
	// (tokens.memory), Buffers for the data of commands (limits.buffers).
	Cache, Tokens, Buffers int64
	// Views is what the caches among the views take.
	Views int64
	// Tables is for what is held of the block allocation tables of virtual disks in
	// VHDX: an eighth of what the rest would have.
	Tables int64
	// Rest is for what is left: connections, the engine of the metadata, the
	// journal, copies, and garbage that was not collected yet.
	Rest int64
}

// DivideMemory returns the parts of the server's memory. available is what the
// machine, or the control group that the server runs in, has; 0: not known. Where
// the file gives no `memory`, the total is DefaultMemory, or three quarters of
// what is available if that is less. Each part that the file does not give gets an
// equal share of what is left.
func (c *Config) DivideMemory(available int64) Memory {
	m := Memory{Total: c.MemoryTotal, Cache: c.Store.Cache, Tokens: c.Tokens.Memory, Buffers: c.Limits.Buffers}
	for i := range c.Views {
		m.Views += c.Views[i].Memory
	}
	if m.Total == 0 {
		m.Total = DefaultMemory
		if fits := available / 4 * 3; available > 0 && fits < m.Total {
			m.Total = fits
		}
		m.Total = max(m.Total, m.least())
	}
	m.divide()
	m.Tables = m.Rest / 8
	m.Rest -= m.Tables
	return m
}

// parts are those that get a share of what is left, with the least that each
// takes.
func (m *Memory) parts() map[*int64]int64 {
	return map[*int64]int64{&m.Cache: leastCache, &m.Tokens: leastTokens, &m.Buffers: leastBuffers, &m.Rest: leastRest}
}

// least is the least total for the parts that are given.
func (m *Memory) least() int64 {
	n := m.Views
	for part, least := range m.parts() {
		if *part > 0 {
			n += *part
		} else {
			n += least
		}
	}
	return max(n, leastTotal)
}

// divide gives each part that is not given its share. A part that needs more than
// an equal one gets that first.
func (m *Memory) divide() {
	left, open := m.Total-m.Views, map[*int64]int64{}
	for part, least := range m.parts() {
		if left -= *part; *part == 0 {
			open[part] = least
		}
	}
	for again := true; again; {
		again = false
		for part, least := range open {
			if least > left/int64(len(open)) {
				*part = least
				left -= least
				delete(open, part)
				again = true
				break
			}
		}
	}
	for part := range open {
		*part = left / int64(len(open))
	}
}

// memory reads the total, for which what is given of its parts has to leave room.
func (c *checker) memory(value *string, cfg *Config) int64 {
	total := c.size("memory", value, leastTotal)
	if total == 0 {
		return 0
	}
	m := Memory{Cache: cfg.Store.Cache, Tokens: cfg.Tokens.Memory, Buffers: cfg.Limits.Buffers}
	for i := range cfg.Views {
		m.Views += cfg.Views[i].Memory
	}
	if least := m.least(); least > total {
		c.add("memory", "%s is too little: what store.cache, tokens.memory, limits.buffers and the caches among the views are given, and the least for the rest, take %s; give more, or leave them out to get shares",
			FormatSize(total), FormatSize(least))
	}
	return total
}
