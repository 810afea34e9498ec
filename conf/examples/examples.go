// Package examples has the configuration that explains every key, as text.
package examples

import _ "embed"

// Full is full.yaml.
//
//go:embed full.yaml
var Full string
