package conf

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The schema of the file. Every value is the text of a YAML scalar, or nil if absent,
// so that errors speak of iSCSI and storage, not of YAML types.
type (
	fileConfig struct {
		DataDir *string       `yaml:"data_dir"`
		Portals []*filePortal `yaml:"portals"`
		Targets []fileTarget  `yaml:"targets"`
		Views   []fileView    `yaml:"views"`

		Discovery fileDiscovery `yaml:"discovery"`
		Copy      fileCopy      `yaml:"copy"`

		Memory *string    `yaml:"memory"`
		Store  fileStore  `yaml:"store"`
		Limits fileLimits `yaml:"limits"`
		Tokens fileTokens `yaml:"tokens"`
		API    fileAPI    `yaml:"api"`
		Log    fileLog    `yaml:"log"`
	}
	// filePortal can also be a scalar, the address.
	filePortal struct {
		Address   *string `yaml:"address"`
		Advertise *string `yaml:"advertise"`
	}
	fileCopy struct {
		Rules []fileCopyRule `yaml:"rules"`
	}
	fileCopyRule struct {
		Initiators []*string `yaml:"initiators"`
		From       []*string `yaml:"from"`
		To         []*string `yaml:"to"`
		Allow      *string   `yaml:"allow"`
	}
	fileTarget struct {
		Name *string   `yaml:"name"`
		LUNs []fileLUN `yaml:"luns"`

		PortalGroups []*string     `yaml:"portal_groups"`
		Paths        []filePath    `yaml:"paths"`
		SetPaths     *string       `yaml:"initiators_set_paths"`
		Redirect     *fileRedirect `yaml:"redirect"`

		Authentication fileAuthentication `yaml:"authentication"`
		Access         []fileAccess       `yaml:"access"`
	}
	filePath struct {
		PortalGroup *string `yaml:"portal_group"`
		State       *string `yaml:"state"`
		Preferred   *string `yaml:"preferred"`
	}
	fileRedirect struct {
		To        *string `yaml:"to"`
		Permanent *string `yaml:"permanent"`
	}
	fileDiscovery struct {
		Authentication fileAuthentication `yaml:"authentication"`
	}
	fileAuthentication struct {
		Required   *string    `yaml:"required"`
		Users      []fileUser `yaml:"users"`
		Mutual     fileMutual `yaml:"mutual"`
		Algorithms []*string  `yaml:"algorithms"`
	}
	fileUser struct {
		Name       *string   `yaml:"name"`
		Secret     *string   `yaml:"secret"`
		SecretFile *string   `yaml:"secret_file"`
		SecretEnv  *string   `yaml:"secret_env"`
		Initiators []*string `yaml:"initiators"`
	}
	fileMutual struct {
		Name       *string `yaml:"name"`
		Secret     *string `yaml:"secret"`
		SecretFile *string `yaml:"secret_file"`
		SecretEnv  *string `yaml:"secret_env"`
	}
	fileAccess struct {
		Initiators []*string       `yaml:"initiators"`
		Addresses  []*string       `yaml:"addresses"`
		LUNs       []fileMappedLUN `yaml:"luns"`
		ReadOnly   *string         `yaml:"read_only"`
		Dedup      *string         `yaml:"dedup"`
	}
	fileMappedLUN struct {
		LUN      *string `yaml:"lun"`
		As       *string `yaml:"as"`
		ReadOnly *string `yaml:"read_only"`
	}
	fileAPI struct {
		Listen      *string `yaml:"listen"`
		Secret      *string `yaml:"secret"`
		SecretFile  *string `yaml:"secret_file"`
		SecretEnv   *string `yaml:"secret_env"`
		Certificate *string `yaml:"certificate"`
		PrivateKey  *string `yaml:"private_key"`
	}
	fileLUN struct {
		LUN       *string `yaml:"lun"`
		Volume    *string `yaml:"volume"`
		File      *string `yaml:"file"`
		Backing   *string `yaml:"backing"`
		View      *string `yaml:"view"`
		Size      *string `yaml:"size"`
		BlockSize *string `yaml:"block_size"`
		ReadOnly  *string `yaml:"read_only"`
		Dedup     *string `yaml:"dedup"`

		UnmapGranularity *string `yaml:"unmap_granularity"`
	}
	fileStore struct {
		Capacity  *string `yaml:"capacity"`
		Cache     *string `yaml:"cache"`
		Dedup     *string `yaml:"dedup"`
		DedupUnit *string `yaml:"dedup_unit"`

		CleanIO       *string `yaml:"clean_io_mib_per_s"`
		Copies        *string `yaml:"metadata_copies"`
		ScrubEvery    *string `yaml:"scrub_every"`
		ScrubIO       *string `yaml:"scrub_io_mib_per_s"`
		SoftThreshold *string `yaml:"soft_threshold"`
	}
	fileLimits struct {
		Sessions              *string `yaml:"sessions"`
		SessionsPerInitiator  *string `yaml:"sessions_per_initiator"`
		ConnectionsPerSession *string `yaml:"connections_per_session"`
		Connections           *string `yaml:"connections"`
		Logins                *string `yaml:"logins"`
		LoginsPerAddress      *string `yaml:"logins_per_address"`
		LoginTimeout          *string `yaml:"login_timeout"`
		Commands              *string `yaml:"commands"`
		DataSegment           *string `yaml:"data_segment"`
		MaxBurst              *string `yaml:"max_burst"`
		FirstBurst            *string `yaml:"first_burst"`
		Buffers               *string `yaml:"buffers"`
		PingAfter             *string `yaml:"ping_after"`
		PingTimeout           *string `yaml:"ping_timeout"`
	}
	fileTokens struct {
		Max               *string         `yaml:"max"`
		MaxPerInitiator   *string         `yaml:"max_per_initiator"`
		Memory            *string         `yaml:"memory"`
		Held              *string         `yaml:"held"`
		Size              *string         `yaml:"size"`
		DigestSize        *string         `yaml:"digest_size"`
		HashLifetime      *string         `yaml:"hash_lifetime_h"`
		MinInactivity     *string         `yaml:"min_inactivity"`
		DefaultInactivity *string         `yaml:"default_inactivity"`
		MaxInactivity     *string         `yaml:"max_inactivity"`
		UseRecords        *string         `yaml:"use_records_per_s"`
		WhenFull          *string         `yaml:"when_full"`
		UnderPressure     *string         `yaml:"under_pressure"`
		Deletion          *string         `yaml:"deletion"`
		RunningCopy       *string         `yaml:"running_copy"`
		Unmapped          *string         `yaml:"unmapped"`
		Access            *string         `yaml:"access"`
		Groups            []fileGroup     `yaml:"groups"`
		Rules             []fileTokenRule `yaml:"rules"`
	}
	fileGroup struct {
		Name       *string   `yaml:"name"`
		Initiators []*string `yaml:"initiators"`
	}
	fileTokenRule struct {
		Initiator *string `yaml:"initiator"`
		Use       *string `yaml:"use"`
		Priority  *string `yaml:"priority"`
		Access    *string `yaml:"access"`
	}
	fileLog struct {
		Level  *string `yaml:"level"`
		Format *string `yaml:"format"`
	}
)

// UnmarshalYAML decodes either form of a portal.
func (p *filePortal) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		p.Address = &n.Value
		return nil
	}
	type plain filePortal
	return n.Decode((*plain)(p))
}

// checker collects the problems of one file.
type checker struct {
	file     string
	lines    map[string]int // key → line
	problems Problems
	// mistyped holds the keys whose value is not of the schema's kind. Their contents
	// were not read, and further problems with them are not reported.
	mistyped map[string]bool
}

// add records a problem with the value at key.
func (c *checker) add(key, format string, args ...any) {
	c.addLine(lineOf(c.lines, key), key, format, args...)
}

func (c *checker) addLine(line int, key, format string, args ...any) {
	c.problems = append(c.problems, Problem{File: c.file, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// checkDocument compares the document with the schema and removes the parts that do
// not fit. The YAML decoder refuses the same parts (KnownFields), but reports neither
// key nor remedy, and stops at the first.
func (c *checker) checkDocument(doc *yaml.Node) {
	if len(doc.Content) == 1 {
		c.checkNode(doc.Content[0], reflect.TypeFor[fileConfig](), "")
	}
}

// checkNode checks a value against the schema type t. The depth of the schema bounds
// the recursion, even if an alias refers to its own anchor.
func (c *checker) checkNode(n *yaml.Node, t reflect.Type, key string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.ShortTag() == "!!null" {
		return
	}
	switch {
	case t == reflect.TypeFor[*filePortal]() && n.Kind == yaml.ScalarNode: // the address
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		c.checkNode(n, t.Elem(), key)
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		c.checkMapping(n, t, key)
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			itemKey := fmt.Sprintf("%s[%d]", key, i)
			c.lines[itemKey] = item.Line
			c.checkNode(item, t.Elem(), itemKey)
		}
	case t.Kind() == reflect.Pointer && n.Kind == yaml.ScalarNode:
	default:
		c.mistyped[key] = true
		found := describe(n)
		if n.Kind == yaml.ScalarNode && strings.Contains(key, "authentication") {
			found = "a single value" // it may be a secret
		}
		c.addLine(n.Line, key, "expected %s, found %s", expected(t), found)
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
}

func (c *checker) checkMapping(n *yaml.Node, t reflect.Type, key string) {
	first := map[string]int{}
	var fitting []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.ShortTag() == "!!merge" {
			c.addLine(name.Line, key, "merge keys (<<) are not supported; write the keys out")
			continue
		}
		field := fieldOf(t, name)
		if field == nil {
			c.addLine(name.Line, key, "unknown key %q; known keys: %s", name.Value, strings.Join(knownKeys(t), ", "))
			continue
		}
		path := name.Value
		if key != "" {
			path = key + "." + path
		}
		if line, ok := first[name.Value]; ok {
			c.addLine(name.Line, path, "duplicate key (first at line %d); remove one", line)
			continue
		}
		first[name.Value] = name.Line
		c.lines[path] = name.Line
		c.checkCommentedSecret(name, value, path)
		c.checkNode(value, field.Type, path)
		fitting = append(fitting, name, value)
	}
	n.Content = fitting
}

// checkCommentedSecret refuses a secret that YAML may have truncated at a
// comment.
func (c *checker) checkCommentedSecret(name, value *yaml.Node, key string) {
	if name.Value == "secret" && value.Kind == yaml.ScalarNode && value.Style == 0 && strings.HasPrefix(value.LineComment, "#") {
		c.add(key, "YAML treats \" #\" as the start of a comment, not as part of the secret; quote the secret, and put a comment on its own line")
	}
}

// fieldOf returns the field of the schema type t for a key, or nil.
func fieldOf(t reflect.Type, key *yaml.Node) *reflect.StructField {
	for i := range t.NumField() {
		if f := t.Field(i); key.Kind == yaml.ScalarNode && f.Tag.Get("yaml") == key.Value {
			return &f
		}
	}
	return nil
}

func knownKeys(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("yaml")
	}
	return keys
}

// expected describes a value of the schema type t.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		return fmt.Sprintf("keys with values (%s)", strings.Join(knownKeys(t), ", "))
	case reflect.Slice:
		return "a list ([a, b], or a line that starts with \"- \" per entry)"
	default:
		return "a single value"
	}
}

// describe describes n in the same terms.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a set of keys"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("the value %q", n.Value)
	}
}
