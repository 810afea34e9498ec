package chap

import "testing"

// A proof holds for another authenticator if the initiator would have proven the same to it.
func TestAuthenticator_Confirms(t *testing.T) {
	type configure = func(c *Config)
	user := func(name, secret string, allows func(string) bool) configure {
		return func(c *Config) { c.Users = []User{{Credential: credential(name, secret), Allows: allows}} }
	}
	for what, c := range map[string]struct {
		next configure
		want bool
	}{
		"the same": {func(*Config) {}, true},
		"more users": {func(c *Config) {
			c.Users = append(c.Users, User{Credential: credential("guest", "the secret of a guest")})
		}, true},
		"another secret":       {user("host", "another secret of it", nil), false},
		"no such user":         {user("guest", hostSecret, nil), false},
		"not for the name":     {user("host", hostSecret, func(name string) bool { return name == otherHost }), false},
		"algorithm":            {func(c *Config) { c.Algorithms = []Algorithm{SHA1} }, false},
		"the target's secret":  {func(c *Config) { c.Target.Secret = []byte("another secret of the target") }, false},
		"the target's name":    {func(c *Config) { c.Target.Name = "another" }, false},
		"no target credential": {func(c *Config) { c.Target = Credential{} }, false},
	} {
		t.Run(what, func(t *testing.T) {
			config := Config{Users: []User{{Credential: credential("host", hostSecret)}}, Target: credential("target", targetSecret)}
			before, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			d := begin(t, before, host, SHA256)
			c.next(&config)
			next, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			if next.Confirms(d.Exchange) {
				t.Error("confirmed before the proof")
			}
			if _, err := d.Step([]Pair{{keyName, "host"}, {keyResponse, d.reply(hostSecret)}}); err != nil {
				t.Fatal(err)
			}
			if got := next.Confirms(d.Exchange); got != c.want {
				t.Errorf("confirmed: %v, want %v", got, c.want)
			}
		})
	}
}
