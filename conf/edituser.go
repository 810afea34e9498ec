package conf

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// InlineSecret returns a secret that is in the configuration file itself.
func InlineSecret(secret string) Secret { return Secret{source: secretInline, text: secret} }

// FileSecret returns a secret in a file, whose path is absolute or relative to the directory
// of the configuration file.
func FileSecret(path string) Secret { return Secret{source: secretFile, text: path} }

// EnvSecret returns a secret in an environment variable of the server.
func EnvSecret(variable string) Secret { return Secret{source: secretEnv, text: variable} }

// Source returns where the secret comes from: itself, the path of its file, or the name of
// its variable; the others are empty.
func (s Secret) Source() (secret, file, variable string) {
	f := s.file()
	for _, p := range []struct {
		from *string
		to   *string
	}{{f.inline, &secret}, {f.file, &file}, {f.env, &variable}} {
		if p.from != nil {
			*p.to = *p.from
		}
	}
	return secret, file, variable
}

// AddUser adds a user to a target, or to discovery if Target is empty. The first user of a
// target makes authentication mandatory there.
type AddUser struct {
	Target string
	User   User
}

func (e AddUser) apply(d *document) error {
	s := e.User.Secret.file()
	node := fileNode(fileUser{textOf(e.User.Name), s.inline, s.file, s.env, namesOf(e.User.Initiators)})
	auth, users, err := d.users(e.Target)
	switch {
	case err != nil:
		return err
	case users != nil:
		if indexBy(users, "name", is(e.User.Name)) >= 0 {
			return fmt.Errorf("user %s of %s %w", e.User.Name, place(e.Target), ErrExists)
		}
		return d.insert(users, len(users.Content), node)
	case auth != nil:
		return d.set(auth, "users", listOf(node))
	}
	auth = mappingOf("users", listOf(node))
	if e.Target != "" {
		target, err := d.target(e.Target)
		if err != nil {
			return err
		}
		return d.set(target, "authentication", auth)
	}
	if discovery := valueOf(d.top(), "discovery"); discovery != nil && discovery.Kind == yaml.MappingNode {
		return d.set(discovery, "authentication", auth)
	}
	return d.set(d.top(), "discovery", mappingOf("authentication", auth))
}

// SetUser changes a user. What is nil stays. Empty Initiators lets every initiator use the
// name.
type SetUser struct {
	Target, Name string
	Secret       *Secret
	Initiators   *[]NamePattern
}

func (e SetUser) apply(d *document) error {
	if e.Secret != nil {
		s := e.Secret.file()
		for _, kind := range []struct {
			key   string
			value *string
		}{{"secret_file", s.file}, {"secret_env", s.env}, {"secret", s.inline}} {
			if err := e.put(d, kind.key, kind.value); err != nil {
				return err
			}
		}
	}
	if e.Initiators == nil {
		return nil
	}
	user, err := d.user(e.Target, e.Name)
	if err != nil {
		return err
	}
	if len(*e.Initiators) == 0 {
		return d.unset(user, "initiators")
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, p := range *e.Initiators {
		list.Content = append(list.Content, textNode(string(p)))
	}
	return d.set(user, "initiators", list)
}

// put sets or removes a key of the user.
func (e SetUser) put(d *document, key string, value *string) error {
	user, err := d.user(e.Target, e.Name)
	if err != nil {
		return err
	}
	if value == nil {
		return d.unset(user, key)
	}
	return d.set(user, key, textNode(*value))
}

// RemoveUser removes a user. The last one stays: without users, all initiators may log in.
type RemoveUser struct{ Target, Name string }

func (e RemoveUser) apply(d *document) error {
	if _, err := d.user(e.Target, e.Name); err != nil {
		return err
	}
	_, users, err := d.users(e.Target)
	if err != nil {
		return err
	}
	if len(users.Content) == 1 {
		return Problem{d.file, users.Line, "", fmt.Sprintf("user %s is the last one of %s; to admit all initiators without authentication, remove authentication from the file", e.Name, place(e.Target))}
	}
	return d.remove(users, indexBy(users, "name", is(e.Name)))
}

// AddAccess adds an entry to the access list of a target.
type AddAccess struct {
	Target string
	Access Access
	// At is the number of entries that come before it. If it is negative or beyond the end,
	// all do.
	At int
}

func (e AddAccess) apply(d *document) error {
	target, err := d.target(e.Target)
	if err != nil {
		return err
	}
	f := e.Access.file()
	for i := range f.LUNs {
		if *f.LUNs[i].As == *f.LUNs[i].LUN {
			f.LUNs[i].As = nil
		}
	}
	node := fileNode(f)
	list, err := d.list(target, "access")
	if err != nil {
		return err
	}
	if list == nil {
		return d.set(target, "access", listOf(node))
	}
	if e.At < 0 || e.At > len(list.Content) {
		e.At = len(list.Content)
	}
	return d.insert(list, e.At, node)
}

// RemoveAccess removes an entry of the access list of a target, by its place from 0. The
// last one stays: without entries, all initiators may use the target.
type RemoveAccess struct {
	Target string
	Index  int
}

func (e RemoveAccess) apply(d *document) error {
	target, err := d.target(e.Target)
	if err != nil {
		return err
	}
	list, err := d.list(target, "access")
	if err != nil {
		return err
	}
	switch {
	case list == nil || e.Index < 0 || e.Index >= len(list.Content):
		return fmt.Errorf("entry %d of the access list of %s %w", e.Index, place(e.Target), ErrNotFound)
	case len(list.Content) == 1:
		return Problem{d.file, list.Line, "", fmt.Sprintf("the entry is the last one of %s; to let all initiators use all LUNs, remove access from the file", place(e.Target))}
	}
	return d.remove(list, e.Index)
}

// place names a target, or discovery.
func place(target string) string {
	if target == "" {
		return "discovery"
	}
	return "target " + target
}

// is returns a function that compares with a text.
func is(text string) func(string) bool { return func(other string) bool { return other == text } }

// users returns the authentication of a target or of discovery and its list of users, each
// nil if there is none.
func (d *document) users(target string) (auth, users *yaml.Node, err error) {
	holder := d.top()
	if target != "" {
		if holder, err = d.target(target); err != nil {
			return nil, nil, err
		}
	} else if holder = valueOf(holder, "discovery"); holder == nil {
		return nil, nil, nil
	}
	if auth, err = d.own(valueOf(holder, "authentication")); auth == nil || err != nil {
		return nil, nil, err
	}
	if auth.Kind != yaml.MappingNode {
		return nil, nil, nil // null
	}
	users, err = d.list(auth, "users")
	return auth, users, err
}

// user returns the entry of a user.
func (d *document) user(target, name string) (*yaml.Node, error) {
	_, users, err := d.users(target)
	if err != nil {
		return nil, err
	}
	if i := indexBy(users, "name", is(name)); i >= 0 {
		return d.own(users.Content[i])
	}
	return nil, fmt.Errorf("user %s of %s %w", name, place(target), ErrNotFound)
}
