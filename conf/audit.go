package conf

// Audit configures the record of changes, which are in the log in any case.
type Audit struct {
	// File is the path of the file. If empty, there is none.
	File string
	// MaxSize is the size in bytes at which the file is renamed and a new one begun. Keep
	// is how many of the renamed ones are kept.
	MaxSize int64
	Keep    int
}

// Defaults of Audit.
const (
	DefaultAuditSize = 16 << 20
	DefaultAuditKeep = 8
)

// audit reads the optional key audit.
func (c *checker) audit(raw *fileAudit) Audit {
	if _, given := c.lines["audit"]; !given || c.mistyped["audit"] {
		return Audit{}
	}
	const least, most = 1 << 20, 1 << 30
	var a Audit
	if path, ok := c.required("audit.file", raw.File, "the file that changes are written to, or omit audit"); ok {
		a.File = resolve(c.file, path)
	}
	if a.MaxSize = c.size("audit.max_size", raw.MaxSize, least); a.MaxSize > most {
		c.add("audit.max_size", "%s exceeds the maximum of %s", FormatSize(a.MaxSize), FormatSize(most))
	} else if a.MaxSize == 0 {
		a.MaxSize = DefaultAuditSize
	}
	a.Keep = int(c.number("audit.keep", raw.Keep, DefaultAuditKeep, 1, 1000, "files"))
	return a
}
