package conf

import "go.yaml.in/yaml/v3"

// SetRedirect has a target redirect logins to a portal, for the time being; "": it does not
// redirect them any more.
type SetRedirect struct{ Target, To string }

func (e SetRedirect) apply(d *document) error {
	target, err := d.target(e.Target)
	if err != nil {
		return err
	}
	if e.To == "" {
		return d.unset(target, "redirect")
	}
	redirect := mappingOf("to", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.To, Style: yaml.DoubleQuotedStyle})
	redirect.Style = yaml.FlowStyle
	return d.set(target, "redirect", redirect)
}
