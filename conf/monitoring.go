package conf

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Metrics configures the address of metrics and health. The zero value serves them over the
// API alone.
type Metrics struct {
	// Listen is host and port.
	Listen string
}

// Alert is a webhook to which odx posts alerts.
type Alert struct {
	Name string
	// URL is that of an HTTP or HTTPS server; Target returns it for use.
	URL string
	// Secret is sent as a bearer token (RFC 6750). The zero value: none is.
	Secret Secret
}

// DefaultSlowCommand is the default of Log.SlowCommand.
const DefaultSlowCommand = 5 * time.Second

// NoSlowCommand is a Log.SlowCommand that logs no command.
const NoSlowCommand = time.Duration(-1)

// metrics reads the optional key metrics.
func (c *checker) metrics(raw *fileMetrics, api API) Metrics {
	if _, given := c.lines["metrics"]; !given || c.mistyped["metrics"] {
		return Metrics{}
	}
	text, ok := c.required("metrics.listen", raw.Listen, "an address, for example 127.0.0.1:9860")
	if !ok {
		return Metrics{}
	}
	m := Metrics{Listen: c.listen("metrics.listen", text, "127.0.0.1:9860")}
	if m.Listen != "" && m.Listen == api.Listen {
		c.add("metrics.listen", "%s is the address of the API, which serves metrics too; use another one, or omit metrics", m.Listen)
	}
	return m
}

// alerts reads the list of webhooks.
func (c *checker) alerts(raw []fileAlert) []Alert {
	var list []Alert
	first := map[string]string{} // name → key
	for i := range raw {
		key := fmt.Sprintf("alerts[%d]", i)
		if c.mistyped[key] {
			continue
		}
		r := &raw[i]
		var a Alert
		if name, ok := c.required(key+".name", r.Name, "a name for the webhook"); ok {
			if a.Name = name; !label.MatchString(name) {
				c.add(key+".name", "invalid name %.70q; use 1 to 64 letters, digits, dots, dashes and underscores", name)
			}
			if where, twice := first[name]; twice {
				c.add(key+".name", "duplicate name %s (first at line %d); give each its own", name, lineOf(c.lines, where))
			}
			first[name] = key + ".name"
		}
		if text, ok := c.required(key+".url", r.URL, "the URL that alerts are posted to"); ok {
			if a.URL = text; !validURL(text) {
				c.add(key+".url", "invalid URL; use one that begins with https:// or http:// and names a host")
			}
		}
		if c.anySecret(key) {
			a.Secret = c.secret(key, fileSecret{r.Secret, r.SecretFile, r.SecretEnv})
		}
		list = append(list, a)
	}
	return list
}

// validURL reports whether text is the URL of a web server. Errors do not quote it: it can
// have a secret.
func validURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return false
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		return err == nil && n > 0
	}
	return true
}

// maskedURL returns a URL with what can be a secret masked: everything but scheme, host and
// port. Many services that take webhooks know their callers by the path alone.
func maskedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return masked
	}
	server := url.URL{Scheme: u.Scheme, Host: u.Host}
	if at := server.String(); text == at || text == at+"/" {
		return text
	}
	return server.String() + "/" + masked
}

// Target returns the URL. It is an error if it is one of Config.Effective.
func (a Alert) Target() (string, error) {
	if strings.HasSuffix(a.URL, "/"+masked) {
		return "", errors.New("the URL is masked: this is what odx config show printed; put the URL in its place")
	}
	return a.URL, nil
}

// Given reports whether there is a secret.
func (s Secret) Given() bool { return s != Secret{} }

// file returns what the file says.
func (l Log) file() fileLog {
	slow := durationOf(l.SlowCommand)
	if l.SlowCommand == NoSlowCommand {
		slow = textOf("0")
	}
	return fileLog{textOf(l.Level), textOf(l.Format), slow}
}

// slowCommand reads log.slow_command: a duration, or 0 for no command.
func (c *checker) slowCommand(value *string) time.Duration {
	if value == nil {
		return DefaultSlowCommand
	}
	if d, err := time.ParseDuration(*value); err == nil && d == 0 {
		return NoSlowCommand
	}
	return c.duration("log.slow_command", value)
}
