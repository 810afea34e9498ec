// Package conf is the configuration of an odx server: one YAML file, which is
// the truth about what is served. It is read strictly. An unknown or repeated
// key, a value of the wrong kind, or two parts that contradict each other make
// the whole file invalid, and every such Problem is reported at once with
// file, line and key, so that nothing is applied from a file that is not
// right from end to end.
package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is a valid configuration. Paths in it are absolute, or relative to
// the working directory.
type Config struct {
	// File is the path that the configuration was read from.
	File string
	// DataDir is the folder of the extent store. In the file, a relative path
	// is relative to the folder of the file.
	DataDir string
	// Portals are the addresses to listen on, at least one.
	Portals []Portal
	// Targets are the iSCSI target nodes, at least one, each with at least one
	// LUN or a redirect.
	Targets []Target
	// Views are volumes made of others, each behind those that it is over.
	Views []View
	// DiscoveryAuthentication is what initiators have to prove before they are
	// told the targets.
	DiscoveryAuthentication Authentication
	// CopyRules say who may copy what by third-party copy. The first one that
	// matches decides; where none does, a copy is allowed.
	CopyRules []CopyRule

	// MemoryTotal is how much memory the server may take, in bytes; 0: see
	// DivideMemory.
	MemoryTotal int64

	Store  Store
	Limits Limits
	Tokens Tokens
	API    API
	Log    Log

	lines map[string]int
}

// Target is one iSCSI target node.
type Target struct {
	// Name is the iSCSI name in its normal form, lower case (RFC 7143 4.2.7).
	Name string
	LUNs []LUN
	// Authentication is what initiators have to prove in normal sessions.
	Authentication Authentication
	// Access lists who may use the target; nil: everyone.
	Access []Access
	// PortalGroups are the tags of the portal groups that the target is in; nil:
	// all of them.
	PortalGroups []uint16
	// Paths are the portal groups that are not active and optimized, or that are
	// preferred.
	Paths []Path
	// FixedPaths keeps initiators from changing the states of the paths: by default,
	// where there are Paths.
	FixedPaths bool
	// Redirect sends initiators elsewhere; nil: they are welcome.
	Redirect *Redirect
}

// ReachedBy reports whether portal p is in one of the target's portal groups.
func (t *Target) ReachedBy(p Portal) bool {
	return t.PortalGroups == nil || slices.Contains(t.PortalGroups, p.Group)
}

// Path says how initiators with several paths are to use a portal group.
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

// Redirect says where initiators find a target that is not here (RFC 7143
// 11.13.5).
type Redirect struct {
	To        Portal
	Permanent bool
}

// LUN is one logical unit of a target. Exactly one of Volume, File, Backing and View is
// set. LUNs with the same one are one logical unit, reachable in several places:
// their other fields are equal.
type LUN struct {
	// Number is the LUN, 0 to MaxLUN.
	Number uint16
	// Volume is the name of a volume of the store.
	Volume string
	// File is the name of a file of the store. The LUN is the virtual disk in it, if
	// the name is that of a VHD or VHDX; otherwise the file is the disk.
	File string
	// Backing is the path of a plain file that a gotgt backing store serves
	// ("backing: file:PATH").
	Backing string
	// View is the name of one of the views.
	View string
	// Size is the capacity in bytes, a multiple of BlockSize; 0 when the file
	// gives none, and then the volume or the backing file has to exist.
	Size int64
	// BlockSize is the logical block length in bytes, 512 or 4096.
	BlockSize int
	ReadOnly  bool
	// StoreDuplicates: what is written to it is not deduplicated.
	StoreDuplicates bool
	// UnmapGranularity is reported to initiators as what to unmap multiples of, in bytes;
	// 0: blocks of the store, to those who can cope with that.
	UnmapGranularity int64
	// Key is where the LUN stands in the file, for example "targets[0].luns[1]".
	Key string
}

// Store holds the settings of the extent store. Zero means the store's own
// default, where nothing else is said.
type Store struct {
	// Capacity bounds the bytes of the store; 0: only the file system does.
	Capacity int64
	// Cache bounds the metadata cache, in bytes.
	Cache int64
	// StoreDuplicates: new data is not looked up, only copies share space.
	StoreDuplicates bool
	// DedupUnit is the longest extent that is deduplicated, in bytes.
	DedupUnit int
	// CleanIO bounds the data that background cleaning moves, in bytes a second.
	CleanIO int64
	// MetadataCopies is how often each file of metadata is kept, 1 or 2.
	MetadataCopies int
	// ScrubEvery is how often the store scrubs itself, 0: never, and ScrubIO how many
	// bytes it reads a second then.
	ScrubEvery time.Duration
	ScrubIO    int64
	// SoftThreshold is the part of the capacity, in per cent, at which initiators
	// are warned that space runs short; 0: they are not.
	SoftThreshold int
}

// DefaultMetadataCopies is the MetadataCopies of a file that gives none.
const DefaultMetadataCopies = 2

// DefaultScrubEvery is the ScrubEvery of a file that gives none.
const DefaultScrubEvery = 30 * 24 * time.Hour

// DefaultSoftThreshold is the SoftThreshold of a file that gives none.
const DefaultSoftThreshold = 90

// Log says what is logged, and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string
	// Format is text or json.
	Format string
}

// MaxLUN is the largest LUN that flat space addressing can name (SAM-5 4.7.7.3).
const MaxLUN = 1<<14 - 1

// MaxSize is the largest capacity of a LUN, in bytes.
const MaxSize = 1 << 50

// maxFile bounds the configuration file, in bytes.
const maxFile = 1 << 20

// Load reads and validates the configuration in the file at path. A file that
// is not valid is reported as Problems; a file that cannot be read as the
// error of the operating system, wrapped.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return Parse(path, text)
}

// Parse validates text as the configuration that stands in the file at path,
// which need not exist. The error, if any, is Problems.
func Parse(path string, text []byte) (*Config, error) {
	if len(text) > maxFile {
		return nil, Problems{{File: path, Message: fmt.Sprintf("the file is larger than %d bytes; is it a configuration?", maxFile)}}
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err != nil {
		return nil, Problems{syntaxProblem(path, err)}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, Problems{syntaxProblem(path, err)}
		}
		return nil, Problems{{File: path, Message: "the file holds more than one YAML document; keep one"}}
	}

	var raw fileConfig
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	strictErr := strict.Decode(&raw)
	var typeErr *yaml.TypeError
	if strictErr != nil && !errors.As(strictErr, &typeErr) {
		return nil, Problems{syntaxProblem(path, strictErr)}
	}

	c := &checker{file: path, lines: map[string]int{}, misshapen: map[string]bool{}}
	c.checkDocument(&doc)
	if typeErr != nil {
		c.reread(&doc, &raw, typeErr)
	}
	cfg := c.config(&raw)
	if len(c.problems) > 0 {
		return nil, c.problems.sorted()
	}
	return cfg, nil
}

// reread decodes what fits the schema of a file that the strict reader refused
// with strictErr, so that the rest of it is validated too.
func (c *checker) reread(doc *yaml.Node, raw *fileConfig, strictErr *yaml.TypeError) {
	reasons := strictErr.Errors
	if len(c.problems) > 0 {
		reasons = nil // checkDocument has said it better
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

// syntaxProblem turns an error of the YAML reader into a Problem.
func syntaxProblem(file string, err error) Problem {
	if errors.Is(err, io.EOF) {
		return Problem{File: file, Message: "the file is empty; `odx serve --write-default` writes one to start from"}
	}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		return Problem{File: file, Line: line, Message: fmt.Sprintf("not valid YAML: %s; look at the indentation, quotes and brackets here and just above", m[2])}
	}
	return Problem{File: file, Message: fmt.Sprintf("not valid YAML: %v", err)}
}

// Problem makes an error about the value at key, for what only shows when the
// configuration is put to use (a portal that is taken, a volume of another
// size).
func (c *Config) Problem(key, format string, args ...any) Problem {
	return Problem{File: c.File, Line: lineOf(c.lines, key), Key: key, Message: fmt.Sprintf(format, args...)}
}

// PortalKey returns the key of Portals[i].
func PortalKey(i int) string { return fmt.Sprintf("portals[%d]", i) }

// resolve makes a path of the configuration file absolute, or relative to the
// working directory.
func resolve(file, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(file), path)
}
