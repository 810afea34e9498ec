package conf

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// SnapshotPolicy says of which volumes the server takes snapshots, when, and which of them it
// keeps.
type SnapshotPolicy struct {
	Name string
	// Volumes are names of volumes, and with "file:" before them of files; an asterisk at
	// the end makes a prefix.
	Volumes  []string
	Schedule Schedule
	Keep     Keep
	// Names is what the snapshots are called.
	Names SnapshotNames
	// MaxSnapshots bounds those of the policy.
	MaxSnapshots int
	// Together: all volumes at one point in time.
	Together bool
	// Paused: it takes none by itself.
	Paused bool
	// Before and After are run before and after the snapshots; nil for nothing.
	Before, After *Hook
	// Key is the path of the policy in the file, for example "snapshots[0]".
	Key string
}

// Keep says which snapshots stay, in the words of restic's forget. Each field is how many
// periods with a snapshot keep the latest one of theirs: Unlimited for all, 0 for none.
type Keep struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps all for so long before the latest one.
	Within Span
}

// Unlimited is a number of Keep without a bound.
const Unlimited = -1

// Empty reports whether nothing is said, so that all stay.
func (k Keep) Empty() bool { return k == Keep{} }

// Hook is a program that is run before or after snapshots.
type Hook struct {
	// Command is the path of the program, which is in the directory of hooks, and its
	// arguments.
	Command   []string
	TimeLimit time.Duration
	// Continue: the run goes on after a failure of the program.
	Continue bool
}

// The defaults and the bounds of policies.
const (
	DefaultMaxSnapshots = 1000
	DefaultHookLimit    = time.Minute

	maxPolicies     = 200
	maxSnapshots    = 100_000
	maxKept         = 100_000
	maxHookLimit    = time.Hour
	hookDirectory   = "hooks"
	maxHookWords    = 64
	maxHookWordSize = 4096
)

// snapshots reads the policies.
func (c *checker) snapshots(raw []fileSnapshotPolicy) []SnapshotPolicy {
	if len(raw) > maxPolicies {
		c.add("snapshots", "%d policies; at most %d are allowed", len(raw), maxPolicies)
		return nil
	}
	var list []SnapshotPolicy
	first := map[string]string{} // name → key
	for i := range raw {
		key := fmt.Sprintf("snapshots[%d]", i)
		if c.mistyped[key] {
			continue
		}
		p := c.snapshotPolicy(key, &raw[i])
		if where, twice := first[p.Name]; twice && p.Name != "" {
			c.add(key+".name", "duplicate policy %s (first at line %d); give each its own name", p.Name, lineOf(c.lines, where))
		}
		first[p.Name] = key + ".name"
		list = append(list, p)
	}
	return list
}

func (c *checker) snapshotPolicy(key string, r *fileSnapshotPolicy) SnapshotPolicy {
	p := SnapshotPolicy{
		Key:          key,
		Volumes:      c.snapshotted(key+".volumes", r.Volumes),
		Schedule:     c.schedule(key, r.Every, r.At, r.TimeZone),
		Keep:         c.keep(key+".keep", &r.Keep),
		MaxSnapshots: int(c.number(key+".max_snapshots", r.MaxSnapshots, DefaultMaxSnapshots, 1, maxSnapshots, "snapshots")),
		Together:     c.oneOf(key+".together", r.Together, "false", "true") == "true",
		Paused:       c.oneOf(key+".pause", r.Pause, "false", "true") == "true",
		Before:       c.hook(key+".before", r.Before),
		After:        c.hook(key+".after", r.After),
	}
	if name, ok := c.required(key+".name", r.Name, "a name for the policy"); ok {
		if p.Name = name; !label.MatchString(name) {
			c.add(key+".name", "invalid name %.70q; use 1 to 64 letters, digits, dots, dashes and underscores", name)
		}
	}
	p.Names = c.snapshotNames(key+".names", r.Names, &p)
	return p
}

// snapshotted reads names and prefixes of volumes and files.
func (c *checker) snapshotted(key string, raw []*string) []string {
	if len(raw) == 0 {
		if !c.mistyped[key] {
			c.add(key, "missing; give names of volumes, or of files as file:NAME; an asterisk at the end makes a prefix")
		}
		return nil
	}
	var names []string
	for i, value := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		name, ok := c.required(k, value, "the name of a volume")
		if !ok {
			continue
		}
		if err := checkSnapshotted(name); err != nil {
			c.add(k, "%v", err)
		}
		if slices.Contains(names, name) {
			c.add(k, "%s is there already; remove one", name)
		}
		names = append(names, name)
	}
	return names
}

// checkSnapshotted checks a name or a prefix of a volume or of a file.
func checkSnapshotted(text string) error {
	name, isFile := strings.CutPrefix(text, "file:")
	prefix, isPrefix := strings.CutSuffix(name, "*")
	switch {
	case strings.Contains(prefix, "*"):
		return fmt.Errorf("%q: an asterisk is allowed only at the end", text)
	case isPrefix && prefix == "":
		return nil
	case isFile && isPrefix:
		if path.Clean("/"+prefix) != "/"+strings.TrimSuffix(prefix, "/") || prefix[0] == '.' {
			return fmt.Errorf("invalid prefix %q of files; use one like file:images/*", text)
		}
		return nil
	case isFile:
		if !isFileName(name) {
			return fmt.Errorf("invalid file name %q; use file: and a path like images/base.img", text)
		}
		return nil
	}
	return CheckVolumeName(prefix)
}

// keep reads what stays.
func (c *checker) keep(key string, r *fileKeep) (k Keep) {
	for _, f := range []struct {
		name  string
		value *string
		to    *int
	}{
		{"last", r.Last, &k.Last}, {"hourly", r.Hourly, &k.Hourly}, {"daily", r.Daily, &k.Daily},
		{"weekly", r.Weekly, &k.Weekly}, {"monthly", r.Monthly, &k.Monthly}, {"yearly", r.Yearly, &k.Yearly},
	} {
		if f.value != nil && *f.value == "unlimited" {
			*f.to = Unlimited
			continue
		}
		n := c.number(key+"."+f.name, f.value, 0, 0, maxKept, "snapshots, or unlimited")
		*f.to = int(n)
	}
	if r.Within != nil {
		var err error
		if k.Within, err = ParseSpan(*r.Within); err != nil {
			c.add(key+".within", "%v", err)
		}
	}
	if _, given := c.lines[key]; given && k.Empty() && !c.mistyped[key] {
		c.add(key, "keeps nothing; say what stays, for example {last: 7}, or omit the key to keep all")
	}
	return k
}

// hook reads a program that is to be run; nil for none.
func (c *checker) hook(key string, r *fileHook) *Hook {
	if r == nil || c.mistyped[key] {
		return nil
	}
	h := &Hook{TimeLimit: DefaultHookLimit, Continue: c.oneOf(key+".on_failure", r.OnFailure, "abort", "continue") == "continue"}
	if d := c.duration(key+".time_limit", r.TimeLimit); d != 0 {
		h.TimeLimit = d
	}
	if h.TimeLimit < time.Second || h.TimeLimit > maxHookLimit {
		c.add(key+".time_limit", "%v is out of range; use a duration from 1s to %v", h.TimeLimit, maxHookLimit)
	}
	at := key + ".command"
	if len(r.Command) == 0 || len(r.Command) > maxHookWords {
		if !c.mistyped[at] {
			c.add(at, "%d words; give a list of the name of a program in the directory %s, and its arguments, %d words at most", len(r.Command), HookDirectory(c.file), maxHookWords)
		}
		return h
	}
	for i, word := range r.Command {
		text := ""
		if word != nil {
			text = *word
		}
		if len(text) > maxHookWordSize || strings.ContainsRune(text, 0) {
			c.add(fmt.Sprintf("%s[%d]", at, i), "invalid argument of %d bytes; use at most %d, none of them zero", len(text), maxHookWordSize)
		}
		h.Command = append(h.Command, text)
	}
	// A name of a configuration that was printed is a path.
	name, dir := h.Command[0], HookDirectory(c.file)
	if filepath.Dir(name) == dir {
		name = filepath.Base(name)
	}
	if !label.MatchString(name) {
		c.add(at+"[0]", "invalid program %.70q; use the name of a file in %s, of 1 to 64 letters, digits, dots, dashes and underscores", name, dir)
	}
	h.Command[0] = filepath.Join(dir, name)
	return h
}

// HookDirectory returns the directory that has the programs which the configuration file at
// path can name: hooks, next to it. Who may change the configuration, over the network for
// example, cannot run others.
func HookDirectory(path string) string { return resolve(path, hookDirectory) }

// CheckHook returns why the program of a hook is not to be run: there is none, or another
// user than this one and root could have put it there.
func CheckHook(program string) error {
	if why := caller().distrusts(program); why != "" {
		return fmt.Errorf("hook %s: %s", program, why)
	}
	return nil
}

// file returns what the file says.
func (p *SnapshotPolicy) file() fileSnapshotPolicy {
	f := fileSnapshotPolicy{
		Name: textOf(p.Name), Volumes: textsOf(p.Volumes), Every: durationOf(p.Schedule.Every), At: textsOf(p.Schedule.At),
		TimeZone: textOf(p.Schedule.Zone), Names: textOf(string(p.Names)), MaxSnapshots: numberOf(int64(p.MaxSnapshots)),
		Together: boolOf(p.Together), Pause: boolOf(p.Paused), Before: p.Before.file(), After: p.After.file(),
	}
	if !p.Keep.Empty() {
		k := &p.Keep
		f.Keep = fileKeep{keptOf(k.Last), keptOf(k.Hourly), keptOf(k.Daily), keptOf(k.Weekly), keptOf(k.Monthly), keptOf(k.Yearly), textOf(k.Within.String())}
	}
	return f
}

func keptOf(n int) *string {
	switch n {
	case 0:
		return nil
	case Unlimited:
		return new("unlimited")
	}
	return new(strconv.Itoa(n))
}

func (h *Hook) file() *fileHook {
	if h == nil {
		return nil
	}
	f := &fileHook{Command: textsOf(h.Command), TimeLimit: durationOf(h.TimeLimit), OnFailure: new("abort")}
	if h.Continue {
		f.OnFailure = new("continue")
	}
	return f
}

// PauseSnapshots sets or removes pause of a policy.
type PauseSnapshots struct {
	Policy string
	Pause  bool
}

func (e PauseSnapshots) apply(d *document) error {
	policies, err := d.list(d.top(), "snapshots")
	if err != nil {
		return err
	}
	i := -1
	if policies != nil {
		i = indexBy(policies, "name", is(e.Policy))
	}
	if i < 0 {
		return fmt.Errorf("policy %s %w", e.Policy, ErrNotFound)
	}
	policy, err := d.own(policies.Content[i])
	switch {
	case err != nil:
		return err
	case e.Pause:
		return d.set(policy, "pause", &yaml.Node{Kind: yaml.ScalarNode, Value: "true"})
	case valueOf(policy, "pause") == nil:
		return nil
	}
	return d.unset(policy, "pause")
}
