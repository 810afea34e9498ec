package conf

// DefaultMemory is the default memory of a server in bytes, if the machine has
// enough.
const DefaultMemory = 1 << 30

// Minimum memory in bytes, in total and of each part.
const (
	minTotal   = 128 << 20
	minCache   = 16 << 20
	minTokens  = 1 << 20
	minBuffers = 32 << 20
	minRest    = 32 << 20
	// minRequests has room for the longest request of the API.
	minRequests = 4 << 20
)

// Memory is the division of the server's memory, in bytes.
type Memory struct {
	// Total is the sum of the parts.
	Total int64
	// Cache is for the metadata of the store (store.cache), Tokens for live tokens
	// (tokens.memory), Buffers for the data of commands (limits.buffers), less an eighth.
	Cache, Tokens, Buffers int64
	// Copies is that eighth: for bytes that copies move.
	Copies int64
	// Views is for the caches of views.
	Views int64
	// Tables is for the cached block allocation tables of VHDX files: an eighth of the
	// rest.
	Tables int64
	// Requests is for the requests and responses of the API: a sixteenth of the rest.
	Requests int64
	// Rest is for everything else: connections, the metadata engine, the journal, and
	// uncollected garbage.
	Rest int64
}

// DivideMemory returns the parts of the server's memory. available is the memory of
// the machine or of the server's control group, 0 if unknown. If the file does not
// give `memory`, the total is DefaultMemory, or three quarters of available if that
// is less. The parts that the file does not give share the remainder equally.
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
		if c.part != nil { // a node can have all shards
			m.Total /= int64(c.part.of)
		}
		m.Total = max(m.Total, m.minimum())
	}
	m.divide()
	m.Copies = m.Buffers / 8
	m.Buffers -= m.Copies
	m.Tables, m.Requests = m.Rest/8, max(m.Rest/16, minRequests)
	m.Rest -= m.Tables + m.Requests
	return m
}

// parts returns the parts that share the remainder, with the minimum of each.
func (m *Memory) parts() map[*int64]int64 {
	return map[*int64]int64{&m.Cache: minCache, &m.Tokens: minTokens, &m.Buffers: minBuffers, &m.Rest: minRest}
}

// minimum returns the minimum total for the given parts.
func (m *Memory) minimum() int64 {
	n := m.Views
	for part, least := range m.parts() {
		if *part > 0 {
			n += *part
		} else {
			n += least
		}
	}
	return max(n, minTotal)
}

// divide assigns the shares of the parts that are not given. A part whose minimum
// exceeds an equal share gets its minimum first.
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

// memory reads the total, which must have room for the given parts.
func (c *checker) memory(value *string, cfg *Config) int64 {
	total := c.size("memory", value, minTotal)
	if total == 0 {
		return 0
	}
	m := Memory{Cache: cfg.Store.Cache, Tokens: cfg.Tokens.Memory, Buffers: cfg.Limits.Buffers}
	for i := range cfg.Views {
		m.Views += cfg.Views[i].Memory
	}
	if least := m.minimum(); least > total {
		c.add("memory", "%s is too small: the given store.cache, tokens.memory, limits.buffers and view caches, and the minimum of the other parts, need %s; increase it, or omit them for equal shares",
			FormatSize(total), FormatSize(least))
	}
	return total
}
