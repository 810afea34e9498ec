// Package conf parses and validates the configuration of an odx server: one YAML
// file. Parsing is strict. An unknown or repeated key, a value of the wrong kind, or
// two parts that contradict each other make the whole file invalid. Every such
// Problem is reported, with file, line and key, and no part of an invalid file is
// applied.
package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is a valid configuration. Paths in it are absolute.
type Config struct {
	// File is the path that the configuration was read from.
	File string
	text []byte // that was read
	// DataDir is the directory of the extent store. In the file, a relative path is
	// relative to the directory of the file. Of a store in a pool it is Pool.String().
	DataDir string
	// Pool has the store; nil: it is in a directory.
	Pool *Pool
	// Portals are the addresses to listen on, at least one.
	Portals []Portal
	// Targets are the iSCSI target nodes, at least one, each with at least one
	// LUN or a redirect.
	Targets []Target
	// Views are volumes composed of others, in dependency order.
	Views []View
	// DiscoveryAuthentication is the authentication of discovery sessions.
	DiscoveryAuthentication Authentication
	// CopyRules restricts third-party copies. The first matching rule applies. If none
	// matches, a copy is allowed.
	CopyRules []CopyRule

	// MemoryTotal bounds the memory of the server in bytes. If 0, see DivideMemory.
	MemoryTotal int64

	Store  Store
	Limits Limits
	QoS    QoS
	Tokens Tokens
	API    API
	Peers  []Peer
	Audit  Audit
	Log    Log

	Metrics Metrics
	Alerts  []Alert

	// Snapshots are the policies by which the server takes snapshots.
	Snapshots []SnapshotPolicy
	// Replicas are what follows volumes and files of peers.
	Replicas []Replica

	lines map[string]int
	// part is nil for a whole configuration.
	part *part
}

// Target is one iSCSI target node.
type Target struct {
	// Name is the iSCSI name in its normal form, lower case (RFC 7143 4.2.7).
	Name string
	LUNs []LUN
	// Shard is the one of the pool that has it, 0 where there is one store.
	Shard int
	// Authentication is the authentication of normal sessions.
	Authentication Authentication
	// Access lists who may use the target. If nil, all initiators may.
	Access []Access
	// PortalGroups are the tags of the target's portal groups. If nil, the target is in
	// all of them.
	PortalGroups []uint16
	// Paths are the portal groups that are not active and optimized, or that are
	// preferred.
	Paths []Path
	// FixedPaths prevents initiators from changing the states of the paths. The default
	// is true if Paths is not empty.
	FixedPaths bool
	// Redirect redirects logins, or is nil.
	Redirect *Redirect
}

// ReachedBy reports whether portal p is in one of the target's portal groups.
func (t *Target) ReachedBy(p Portal) bool {
	return t.PortalGroups == nil || slices.Contains(t.PortalGroups, p.Group)
}

// Path is the asymmetric access state of a portal group.
type Path struct {
	Group uint16
	// State is one of the Path… constants.
	State     string
	Preferred bool
}

// Asymmetric access states of a path (SPC-4 r37 5.15.2.4).
const (
	PathOptimized    = "optimized"
	PathNonOptimized = "nonoptimized"
	PathStandby      = "standby"
	PathUnavailable  = "unavailable"
)

// Redirect is the address of a target that has moved (RFC 7143 11.13.5).
type Redirect struct {
	To        Portal
	Permanent bool
}

// Login is what a LUN of another target is logged in to with (CHAP).
type Login struct {
	User
	// Mutual is what that target proves itself with; nil: no proof is demanded.
	Mutual *User
}

// LUN is one logical unit of a target. Exactly one of Volume, File, Backing, ISCSI and View is
// set. LUNs with the same one are the same logical unit, and their other fields are
// equal.
type LUN struct {
	// Number is the LUN, 0 to MaxLUN.
	Number uint16
	// Volume is the name of a volume of the store.
	Volume string
	// File is the name of a file of the store. If the name is that of a VHD or VHDX, the
	// LUN is the virtual disk in the file; otherwise it is the file itself.
	File string
	// Backing is the path of a plain file that a gotgt backing store serves
	// ("backing: file:PATH").
	Backing string
	// ISCSI is the LUN of another target, as ParseISCSI returns it ("backing: iscsi://…").
	ISCSI string
	// Login is what to log in there with; nil: nothing.
	Login *Login
	// View is the name of a view.
	View string
	// Size is the capacity in bytes, a multiple of BlockSize. If 0, the volume or the
	// backing file must exist.
	Size int64
	// BlockSize is the logical block length in bytes, 512 or 4096.
	BlockSize int
	ReadOnly  bool
	// StoreDuplicates disables deduplication of writes to the LUN.
	StoreDuplicates bool
	// UnmapGranularity is the OPTIMAL UNMAP GRANULARITY in bytes. If 0, the block of the
	// store is reported to initiators that support it.
	UnmapGranularity int64
	// Identity is what initiators know the LUN by (NAA, EUI-64, serial number), and what its
	// reservations and mode pages are stored under; zero: that of the medium.
	Identity [16]byte
	// Rate limits all use of the LUN.
	Rate Rate
	// Key is the path of the LUN in the file, for example "targets[0].luns[1]".
	Key string
}

// Store configures the extent store. Unless stated otherwise, zero selects the
// store's default.
type Store struct {
	// Capacity bounds the size of the store in bytes. If 0, only the file system does.
	Capacity int64
	// Cache bounds the metadata cache in bytes.
	Cache int64
	// StoreDuplicates disables the dedup lookup of new data. Copies still share extents.
	StoreDuplicates bool
	// DedupUnit is the maximum length of a deduplicated extent in bytes.
	DedupUnit int
	// CleanIO bounds the rate of background cleaning in bytes per second.
	CleanIO int64
	// MetadataCopies is the number of copies of each metadata file, 1 or 2.
	MetadataCopies int
	// ScrubEvery is the interval between scrubs, or 0 for none. ScrubIO bounds the read
	// rate of a scrub in bytes per second.
	ScrubEvery time.Duration
	ScrubIO    int64
	// SoftThreshold is the used percentage of the capacity at which initiators receive
	// a warning, or 0 for none.
	SoftThreshold int
}

// DefaultMetadataCopies is the default of Store.MetadataCopies.
const DefaultMetadataCopies = 2

// DefaultScrubEvery is the default of Store.ScrubEvery.
const DefaultScrubEvery = 30 * 24 * time.Hour

// DefaultSoftThreshold is the default of Store.SoftThreshold.
const DefaultSoftThreshold = 90

// Log configures logging.
type Log struct {
	// Level is debug, info, warn or error.
	Level string
	// Format is text or json.
	Format string
	// SlowCommand is the duration from which on a command is logged, or NoSlowCommand.
	SlowCommand time.Duration
}

// MaxLUN is the largest LUN of flat space addressing (SAM-5 4.7.7.3).
const MaxLUN = 1<<14 - 1

// MaxSize is the maximum capacity of a LUN in bytes.
const MaxSize = 1 << 50

// maxFile is the maximum length of the configuration file in bytes.
const maxFile = 1 << 20

// Load reads and validates the configuration file at path. If the file is invalid,
// the error is Problems; if it cannot be read, it wraps the error of the operating
// system.
func Load(path string) (*Config, error) {
	text, err := readConfiguration(path)
	if err != nil {
		if named := (*fs.PathError)(nil); errors.As(err, &named) {
			err = named.Err
		}
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return Parse(path, text)
}

// Parse validates text as the contents of the configuration file at path, which need
// not exist. The error, if any, is Problems.
func Parse(path string, text []byte) (*Config, error) {
	if len(text) > maxFile {
		return nil, Problems{{File: path, Message: fmt.Sprintf("file exceeds %d bytes; is it a configuration?", maxFile)}}
	}
	return parse(path, text)
}

// ParseEffective is Parse for what Config.Effective has returned, of a file that Parse
// accepts: with its defaults it may be longer.
func ParseEffective(path string, text []byte) (*Config, error) { return parse(path, text) }

func parse(path string, text []byte) (*Config, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err != nil {
		return nil, Problems{syntaxProblem(path, err)}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, Problems{syntaxProblem(path, err)}
		}
		return nil, Problems{{File: path, Message: "file has more than one YAML document; keep one"}}
	}

	if p := widest(path, &doc); p != nil {
		return nil, Problems{*p}
	}

	var raw fileConfig
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	strictErr := strict.Decode(&raw)
	var typeErr *yaml.TypeError
	if strictErr != nil && !errors.As(strictErr, &typeErr) {
		return nil, Problems{syntaxProblem(path, strictErr)}
	}

	c := &checker{file: path, lines: map[string]int{}, mistyped: map[string]bool{}}
	c.checkDocument(&doc)
	if typeErr != nil {
		c.reread(&doc, &raw, typeErr)
	}
	cfg := c.config(&raw)
	if len(c.problems) > 0 {
		return nil, c.problems.sorted().bounded()
	}
	cfg.text = bytes.Clone(text)
	return cfg, nil
}

// Text returns the contents of the file that the configuration was read from, which may
// have changed since.
func (c *Config) Text() []byte { return bytes.Clone(c.text) }

// reread decodes the valid part of a file that the strict decoder refused with
// strictErr, so that this part is validated too.
func (c *checker) reread(doc *yaml.Node, raw *fileConfig, strictErr *yaml.TypeError) {
	reasons := strictErr.Errors
	if len(c.problems) > 0 {
		reasons = nil // checkDocument has reported them with keys
	}
	*raw = fileConfig{}
	if err := doc.Decode(raw); err != nil && len(c.problems) == 0 {
		reasons = append(reasons, err.Error())
	}
	for _, text := range reasons {
		c.problems = append(c.problems, syntaxProblem(c.file, errors.New(text)))
	}
}

var yamlLine = regexp.MustCompile(`(?s)^(?:yaml: )?line (\d+): (.*)$`)

// syntaxProblem converts an error of the YAML decoder into a Problem.
func syntaxProblem(file string, err error) Problem {
	if errors.Is(err, io.EOF) {
		return Problem{File: file, Message: "file is empty; `odx serve --write-default` writes a default configuration"}
	}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		return Problem{File: file, Line: line, Message: fmt.Sprintf("invalid YAML: %s; check the indentation, quotes and brackets here and just above", m[2])}
	}
	return Problem{File: file, Message: fmt.Sprintf("invalid YAML: %v", err)}
}

// Problem returns a Problem with the value at key, for errors that are detected when
// the configuration is applied (a port in use, a volume of another size).
func (c *Config) Problem(key, format string, args ...any) Problem {
	return Problem{File: c.File, Line: lineOf(c.lines, key), Key: key, Message: fmt.Sprintf(format, args...)}
}

// PortalKey returns the key of Portals[i].
func PortalKey(i int) string { return fmt.Sprintf("portals[%d]", i) }

// resolve resolves a path in the configuration file relative to the file's
// directory. The result is absolute, unless the working directory is unknown.
func resolve(file, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
